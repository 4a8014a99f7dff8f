"""Train a pre-activation ResNet on CIFAR-10, choosing the learning rate by hand (the "ctrl+c" method).

    python resnet_cifar10.py --checkpoints output/resnet_cifar10/checkpoints
    python resnet_cifar10.py --model output/resnet_cifar10/checkpoints/epoch_50.hdf5 --lr 0.01
    python resnet_cifar10.py --model latest --lr 0.001

Watch the curves in output/resnet_cifar10.png, stop with Ctrl+C, and resume from a checkpoint with a lower rate.
Published: 93.24 % test accuracy with rate 0.1 up to epoch 50, 0.01 up to 75 and 0.001 up to 85 (88.18 % with
--filters 16,16,32,64).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import cifar10_config as config
from pipeline.cli import arguments, command, console


def main() -> None:
    parser = arguments.training_parser(__doc__, config.BY_HAND, config)
    arguments.add_by_hand(parser, config.CHECKPOINTS)
    parsed = parser.parse_args()
    with console.quiet_start():
        import keras

        from pipeline import training
        from pipeline.callbacks import EpochCheckpoint, LearningRate, TrainingMonitor, WeightAverage, loggers
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_by_hand
        from pipeline.data.cifar10 import CIFAR10
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD

    # Flags that are not given take the checkpoint's values on a resume, else the defaults of script and recipe.
    run = start_by_hand(parsed, "resnet_cifar10", config)
    args, recipe = run.args, Recipe.of(vars(run.args))

    # Training images are shuffled and augmented anew in every epoch. Validation uses the test set, or with --holdout,
    # training images held out.
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
    # SGD, plus a warm-up in which the rate rises step by step, if the recipe asks for one.
    warmup_steps = args.warmup_epochs * train.steps
    optimizer = WarmupSGD(args.lr, momentum=args.momentum, nesterov=args.nesterov, warmup_steps=warmup_steps)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])

    callbacks = [
        # Keeps the rate until you change it, or follows --schedule.
        LearningRate(decay=recipe.decay),
        WeightAverage(args.ema, val),
        TrainingMonitor(Path(args.output, "resnet_cifar10.png"), json_path=Path(args.output, "resnet_cifar10.json")),
        *loggers(args.csv, args.tensorboard, args.page and Path(args.output, "resnet_cifar10.html")),
        EpochCheckpoint(run.folder, every=args.every),
    ]
    result = training.fit(run, model, data, train, val, callbacks)
    training.report(run, model, val, result)


if __name__ == "__main__":
    command.run(main)
