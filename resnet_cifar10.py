"""Train a pre-activation ResNet on CIFAR-10, choosing the learning rate by hand (the "ctrl+c" method).

    python resnet_cifar10.py --checkpoints output/checkpoints
    python resnet_cifar10.py --checkpoints output/checkpoints --model output/checkpoints/epoch_50.hdf5 --lr 0.01
    python resnet_cifar10.py --checkpoints output/checkpoints --model latest --lr 0.001

Watch the curves in output/resnet_cifar10.png, stop, and go on from a checkpoint with a lower rate. Published: 0.1 to
epoch 50, 0.01 to 75, 0.001 to 85 reaches 93.24 % (88.18 % with --filters 16,16,32,64).
"""

from pathlib import Path

from config import cifar10_config as config
from pipeline import arguments, console
from pipeline.errors import InputError

SCRIPT = "resnet_cifar10"


def parse_arguments():
    parser = arguments.training_parser(__doc__, config.BY_HAND)
    parser.add_argument(
        "-c",
        "--checkpoints",
        metavar="DIR",
        help=f"folder of the checkpoints (default: that of --model, else {config.CHECKPOINTS})",
    )
    parser.add_argument("-m", "--model", metavar="FILE", help="checkpoint to go on from, or the word latest")
    parser.add_argument("-s", "--start_epoch", type=arguments.epoch, metavar="N", help="epoch of --model, as a check")
    arguments.add_data(parser)
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    with console.quiet_start():
        from pipeline import training
        from pipeline.io.batches import train_and_test_batches
        from pipeline.io.cifar10 import load_cifar10
        from pipeline.nn.conv import ResNet
        from pipeline.preprocessing import AffineAugmentation

    checkpoint = training.find_checkpoint(given.model, Path(given.checkpoints or config.CHECKPOINTS))
    start_epoch = checkpoint.epoch if checkpoint else 0
    if given.start_epoch not in (None, start_epoch):
        raise InputError(f"--start_epoch {given.start_epoch} differs from the epoch to go on from, {start_epoch}")
    args = training.resolve(given, SCRIPT, config.BY_HAND, checkpoint, free={"epochs"})
    folder = Path(args.checkpoints or (checkpoint.path.parent if checkpoint else config.CHECKPOINTS))

    training.set_up(args)
    dataset = load_cifar10(args.data, args.limit)
    history = training.open_history(SCRIPT, args, config.BY_HAND, dataset.digest(), checkpoint)
    train, test = train_and_test_batches(
        dataset, AffineAugmentation(**config.AUGMENTATION), args.batch_size, args.seed, args.workers
    )
    network = config.IMAGES | training.network_arguments(args, len(dataset.classes))
    model = ResNet.build(**network)
    training.compile_model(model, args, checkpoint)
    written = training.fit(model, train, test, args, folder=folder, network=network, history=history)
    training.report(model, test, dataset.classes, written)


if __name__ == "__main__":
    console.run(main)
