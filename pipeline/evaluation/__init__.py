"""Judge a trained network: by class, by confusions, by single images, by its confidence. Modules load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    calibration="Bin calibration_bins expected_calibration_error",
    confusion="Confusion confusion_matrix most_confused",
    predictions="Predictions",
    report="check_report_folder write_report",
)
