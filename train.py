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

from pipeline.cli import command


def main() -> None:
    from config import tiny_imagenet_config as config
    from pipeline.cli import arguments, console

    parser = arguments.training_parser(__doc__, config.BY_HAND, config)
    arguments.add_by_hand(parser, config.CHECKPOINTS)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import training
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_by_hand
        from pipeline.data.tinyimagenet import TinyImageNet
        from pipeline.nn.conv import ResNet

    run = start_by_hand(given, "train", config)
    values, recipe = run.values, Recipe.of(vars(run.values))
    data = TinyImageNet(config.files(values.data), values.limit, values.holdout)
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
