"""Train ResNet-50 on ImageNet with a learning rate that decays to 0 over the epochs.

    python train_imagenet_decay.py --model output/resnet50_imagenet.hdf5
    python train_imagenet_decay.py --model output/resnet50_imagenet.hdf5 --resume

Build the data set first with build_imagenet.py. --model is the file of the trained model; checkpoints go to the folder
of that name without the extension. The published recipe gave GluonCV, with the same network, 77.11 % rank-1 and 93.43 %
rank-5 on the validation set after 120 epochs. Measure yours with rank_accuracy.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import imagenet_config as config
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
        from pipeline.data.imagenet import ImageNet
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD

    # Flags that are not given take the checkpoint's values on a resume, else the defaults of script and recipe.
    run = start_decay(parsed, "train_imagenet_decay", config)
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
        # Scales the rate by recipe.decay(epoch), from 1 down to 0.
        LearningRate(decay=recipe.decay),
        WeightAverage(args.ema, val),
        TrainingMonitor(
            Path(args.output, "train_imagenet_decay.png"), json_path=Path(args.output, "train_imagenet_decay.json")
        ),
        *loggers(args.csv, args.tensorboard, args.page and Path(args.output, "train_imagenet_decay.html")),
        EpochCheckpoint(run.folder, every=args.every),
    ]
    result = training.fit(run, model, data, train, val, callbacks)
    training.report(run, model, val, result)


if __name__ == "__main__":
    command.run(main)
