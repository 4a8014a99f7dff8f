"""Train a pre-activation ResNet on Tiny ImageNet with a learning rate that decays to 0 over the epochs.

    python train_decay.py --model output/resnet_tinyimagenet_decay.hdf5
    python train_decay.py --model output/resnet_tinyimagenet_decay.hdf5 --resume

Build the data set first, with build_tiny_imagenet.py. The trained model goes to --model, the checkpoints on the way to
a folder of the same name without its ending. Published: 75 epochs reach 57.93 % rank-1 and 81.03 % rank-5 on the test
set, which rank_accuracy.py measures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from pipeline import command


def main() -> None:
    from config import tiny_imagenet_config as config
    from pipeline import arguments, console

    parser = arguments.training_parser(__doc__, config.DECAY, config.RECIPES)
    arguments.add_decay(parser, config.MODEL)
    arguments.add_tiny_imagenet(parser, config.DATA, config.DATA_VARIABLE)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import runs, training
        from pipeline.io import tiny_imagenet_batches
        from pipeline.nn.conv import ResNet

    run = runs.start_decay(given, "train_decay", config.DECAY, config.RECIPES)
    places = config.places(run.args.data)
    train, val = tiny_imagenet_batches(places.train_hdf5, places.val_hdf5, places.mean, run.recipe, **run.batching)
    network = run.network(config.IMAGES, train.classes)
    model = ResNet.build(**network)
    training.compile_model(run, model, train.steps)
    written = training.fit(run, model, network, train, val)
    training.report(run, model, val, written)


if __name__ == "__main__":
    command.run(main)
