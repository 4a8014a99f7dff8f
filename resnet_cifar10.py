"""Train a pre-activation ResNet on CIFAR-10, choosing the learning rate by hand (the "ctrl+c" method).

    python resnet_cifar10.py --checkpoints output/resnet_cifar10/checkpoints
    python resnet_cifar10.py --model output/resnet_cifar10/checkpoints/epoch_50.hdf5 --lr 0.01
    python resnet_cifar10.py --model latest --lr 0.001

Watch the curves in output/resnet_cifar10.png, stop, and go on from a checkpoint with a lower rate. Published: 0.1 to
epoch 50, 0.01 to 75, 0.001 to 85 reaches 93.24 % (88.18 % with --filters 16,16,32,64).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from pipeline import command


def main() -> None:
    from config import cifar10_config as config
    from pipeline import arguments, console

    parser = arguments.training_parser(__doc__, config.BY_HAND, config.RECIPES)
    arguments.add_by_hand(parser, config.CHECKPOINTS)
    arguments.add_cifar10(parser)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import runs, training
        from pipeline.io import cifar10_batches
        from pipeline.nn.conv import ResNet

    run = runs.start_by_hand(given, "resnet_cifar10", config.BY_HAND, config.RECIPES, config.CHECKPOINTS)
    train, test = cifar10_batches(run.args.data, run.recipe, **run.batching)
    network = run.network(config.IMAGES, train.classes)
    model = ResNet.build(**network)
    training.compile_model(run, model, train.steps)
    written = training.fit(run, model, network, train, test)
    training.report(run, model, test, written)


if __name__ == "__main__":
    command.run(main)
