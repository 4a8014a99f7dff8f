"""Train a pre-activation ResNet on Tiny ImageNet, choosing the learning rate by hand (the "ctrl+c" method).

    python train.py --checkpoints output/train/checkpoints
    python train.py --model output/train/checkpoints/epoch_30.hdf5 --lr 0.01
    python train.py --model latest --lr 0.001

Build the data set first, with build_tiny_imagenet.py. Watch the curves in output/train.png, stop, and go on from a
checkpoint with a lower rate. Published: 0.1 to epoch 30, 0.01 to 50, 0.001 to 70 reaches 57.27 % rank-1 and 81.34 %
rank-5 on the test set, which rank_accuracy.py measures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from pipeline import command


def main() -> None:
    from config import tiny_imagenet_config as config
    from pipeline import arguments, console

    parser = arguments.training_parser(__doc__, config.BY_HAND, config.RECIPES)
    arguments.add_by_hand(parser, config.CHECKPOINTS)
    arguments.add_tiny_imagenet(parser, config.DATA, config.DATA_VARIABLE)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import runs, training
        from pipeline.io import tiny_imagenet_batches
        from pipeline.nn.conv import ResNet

    run = runs.start_by_hand(given, "train", config.BY_HAND, config.RECIPES, config.CHECKPOINTS)
    places = config.places(run.args.data)
    train, val = tiny_imagenet_batches(places.train_hdf5, places.val_hdf5, places.mean, run.recipe, **run.batching)
    network = run.network(config.IMAGES, train.classes)
    model = ResNet.build(**network)
    training.compile_model(run, model, train.steps)
    written = training.fit(run, model, network, train, val)
    training.report(run, model, val, written)


if __name__ == "__main__":
    command.run(main)
