"""Tables in MATLAB files: read as SciPy reads them, or refused."""

import io
from contextlib import suppress

import numpy as np
import pytest
import scipy.io
from imagenetlayout import synsets

from pipeline.files.matlabtable import read_table


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("number", [np.float64, np.int64, np.uint8])
def test_a_matlab_table_is_read_as_scipy_reads_it(number, compressed):
    table = np.empty((1, 200), [("number", object), ("text", object), ("more", object)])
    for row in range(200):
        table[0, row] = (number(row), f"wörd {row}", np.arange(row))
    file = io.BytesIO()
    scipy.io.savemat(file, {"before": np.zeros(3), "table": table}, do_compression=compressed)
    expected = scipy.io.loadmat(file, squeeze_me=True)["table"]
    rows = read_table(file.getvalue(), "table", ("text", "number"), 1 << 20)
    assert rows == [(text, float(value)) for value, text, _ in expected]
    for parts in (("other", ("text",)), ("table", ("gloss",)), ("before", ("text",))):
        with pytest.raises(ValueError, match=parts[0] if parts[0] != "table" else "gloss"):
            read_table(file.getvalue(), *parts, 1 << 20)


def test_any_change_to_a_matlab_table_gives_a_table_or_an_error():
    content, read = synsets(compressed=False), 0
    for place in range(126, 1200):
        for value in range(1, 256, 17):
            changed = content[:place] + bytes([content[place] ^ value]) + content[place + 1 :]
            with suppress(ValueError):
                read += bool(read_table(changed, "synsets", ("ILSVRC2012_ID", "WNID"), 1 << 24))
    assert read > 5_000
