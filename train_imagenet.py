"""Train ResNet-50 on ImageNet, choosing the learning rate by hand (the "ctrl+c" method).

    python train_imagenet.py --checkpoints output/train_imagenet/checkpoints
    python train_imagenet.py --model output/train_imagenet/checkpoints/epoch_30.hdf5 --lr 0.01
    python train_imagenet.py --model latest --lr 0.001

Build the data set first with build_imagenet.py. Watch the curves in output/train_imagenet.png, stop with Ctrl+C, and
resume from a checkpoint with a lower rate: usual are 0.1 up to epoch 30, 0.01 up to 60, 0.001 up to 80 and 0.0001 up to
90, which gave others about 76 % rank-1 (docs/imagenet.md). Measure yours with rank_accuracy.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import imagenet_config as config
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
        from pipeline.data.imagenet import ImageNet
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD

    # Flags that are not given take the checkpoint's values on a resume, else the defaults of script and recipe.
    run = start_by_hand(parsed, "train_imagenet", config)
    args, recipe = run.args, Recipe.of(vars(run.args))

    # Training images are shuffled, and a random part of each is taken in every epoch. Validation uses the centres of
    # the official validation images, or with --holdout, of training images held out. All are then standardized.
    data = ImageNet(config.files(args.data), args.limit, args.holdout, args.image_size, args.eval_ratio)
    train = data.train_batches(
        args.batch_size, recipe.augmentation, recipe.mixing, seed=args.seed, workers=args.workers
    )
    val = data.val_batches(args.batch_size, workers=args.workers)

    keras.config.set_dtype_policy(args.precision)
    model = ResNet.build(
        *data.image_shape,
        classes=len(data.class_names),
        stages=args.stages,
        filters=args.filters,
        reg=args.reg,
        dataset="imagenet",
    )
    # SGD, plus a warm-up in which the rate rises step by step, if the recipe asks for one.
    warmup_steps = args.warmup_epochs * train.steps
    optimizer = WarmupSGD(args.lr, momentum=args.momentum, nesterov=args.nesterov, warmup_steps=warmup_steps)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])

    callbacks = [
        # Keeps the rate until you change it, or follows --schedule.
        LearningRate(decay=recipe.decay),
        WeightAverage(args.ema, val),
        TrainingMonitor(Path(args.output, "train_imagenet.png"), json_path=Path(args.output, "train_imagenet.json")),
        *loggers(args.csv, args.tensorboard, args.page and Path(args.output, "train_imagenet.html")),
        EpochCheckpoint(run.folder, every=args.every),
    ]
    result = training.fit(run, model, data, train, val, callbacks)
    training.report(run, model, val, result)


if __name__ == "__main__":
    command.run(main)
