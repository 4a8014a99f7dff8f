"""Train a pre-activation ResNet on CIFAR-10 with a learning rate that decays to 0 over the epochs.

    python resnet_cifar10_decay.py --model output/resnet_cifar10.hdf5 --output output
    python resnet_cifar10_decay.py --model output/resnet_cifar10.hdf5 --output output --resume

The trained model goes to --model, the checkpoints on the way to a folder of the same name without its ending.
Published: 120 epochs reach 93.39 %, 150 epochs 93.79 %.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from config import cifar10_config as config
from pipeline.cli import arguments, command, console


def main() -> None:
    parser = arguments.training_parser(__doc__, config.DECAY, config)
    arguments.add_decay(parser, config.MODEL)
    given = parser.parse_args()
    with console.quiet_start():
        import keras

        from pipeline import training
        from pipeline.callbacks import EpochCheckpoint, LearningRate, TrainingMonitor, WeightAverage
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_decay
        from pipeline.data.cifar10 import CIFAR10
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD

    # The values of the flags, of the checkpoint where a run goes on, and what the recipe makes of them.
    run = start_decay(given, "resnet_cifar10_decay", config)
    args, recipe = run.args, Recipe.of(vars(run.args))

    # Training images are shuffled and varied anew each epoch; validation is on the test set, or on training images that
    # are held out.
    data = CIFAR10(args.data, args.limit, args.holdout)
    train = data.train_batches(
        args.batch_size, recipe.augmentation, recipe.mixing, seed=args.seed, workers=args.workers
    )
    val = data.val_batches(args.batch_size, workers=args.workers)

    keras.config.set_dtype_policy(args.precision)
    model = ResNet.build(
        **config.IMAGES,
        classes=len(data.class_names),
        stages=args.stages,
        filters=args.filters,
        reg=args.reg,
    )
    # In a warm-up, if the recipe has one, the rate rises from step to step, which WarmupSGD alone can do.
    warmup_steps = args.warmup_epochs * train.steps
    optimizer = WarmupSGD(args.lr, momentum=args.momentum, nesterov=args.nesterov, warmup_steps=warmup_steps)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])

    callbacks = [
        # From the optimizer's rate to 0: recipe.decay gives the share that is left after so many epochs.
        LearningRate(decay=recipe.decay),
        WeightAverage(args.ema, val),
        TrainingMonitor(
            Path(args.output, "resnet_cifar10_decay.png"), json_path=Path(args.output, "resnet_cifar10_decay.json")
        ),
        EpochCheckpoint(run.folder, every=args.every),
    ]
    outcome = training.fit(run, model, data, train, val, callbacks)
    training.report(run, model, val, outcome)


if __name__ == "__main__":
    command.run(main)
