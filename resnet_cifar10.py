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

from pipeline.cli import command


def main() -> None:
    from config import cifar10_config as config
    from pipeline.cli import arguments, console

    parser = arguments.training_parser(__doc__, config.BY_HAND, config)
    arguments.add_by_hand(parser, config.CHECKPOINTS)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import training
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_by_hand
        from pipeline.data.cifar10 import CIFAR10
        from pipeline.nn.conv import ResNet

    run = start_by_hand(given, "resnet_cifar10", config)
    values, recipe = run.values, Recipe.of(vars(run.values))
    data = CIFAR10(values.data, values.limit, values.holdout)
    batch_size, workers = values.batch_size, values.workers
    train = data.train_batches(batch_size, recipe.augmentation, recipe.mixing, values.seed, workers=workers)
    val = data.val_batches(batch_size, workers=workers)
    network = run.network(config.IMAGES, len(data.class_names))
    model = ResNet.build(**network)
    training.compile_model(run, model, train.steps)
    outcome = training.fit(run, model, network, data, train, val)
    training.report(run, model, val, outcome)


if __name__ == "__main__":
    command.run(main)
