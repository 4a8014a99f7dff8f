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

from pipeline.cli import command


def main() -> None:
    from config import tiny_imagenet_config as config
    from pipeline.cli import arguments, console

    parser = arguments.training_parser(__doc__, config.DECAY, config)
    arguments.add_decay(parser, config.MODEL)
    given = parser.parse_args()
    with console.quiet_start():
        from pipeline import training
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_decay
        from pipeline.data.tinyimagenet import TinyImageNet
        from pipeline.nn.conv import ResNet

    run = start_decay(given, "train_decay", config)
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
