"""Train a pre-activation ResNet on CIFAR-10 with a learning rate that decays to 0 over the epochs.

    python resnet_cifar10_decay.py --model output/resnet_cifar10.hdf5 --output output
    python resnet_cifar10_decay.py --model output/resnet_cifar10.hdf5 --output output --resume

--model is the file of the trained model; checkpoints go to the folder of that name without the extension. Published:
93.39 % test accuracy after 120 epochs, 93.79 % after 150.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import cifar10_config as config
from pipeline.cli import arguments, command, console


def main() -> None:
    parser = arguments.training_parser(__doc__, config.DECAY, config)
    arguments.add_decay(parser, config.MODEL)
    parsed = parser.parse_args()
    with console.quiet_start():
        import keras

        from pipeline import training
        from pipeline.callbacks import EpochCheckpoint, LearningRate, TrainingMonitor, WeightAverage, loggers
        from pipeline.cli.recipe import Recipe
        from pipeline.cli.start import start_decay
        from pipeline.data.cifar10 import CIFAR10
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD

    # Flags that are not given take the checkpoint's values on a resume, else the defaults of script and recipe.
    run = start_decay(parsed, "resnet_cifar10_decay", config)
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
        # Scales the rate by recipe.decay(epoch), from 1 down to 0.
        LearningRate(decay=recipe.decay),
        WeightAverage(args.ema, val),
        TrainingMonitor(
            Path(args.output, "resnet_cifar10_decay.png"), json_path=Path(args.output, "resnet_cifar10_decay.json")
        ),
        *loggers(args.csv, args.tensorboard, args.page and Path(args.output, "resnet_cifar10_decay.html")),
        EpochCheckpoint(run.folder, every=args.every),
    ]
    result = training.fit(run, model, data, train, val, callbacks)
    training.report(run, model, val, result)


if __name__ == "__main__":
    command.run(main)
