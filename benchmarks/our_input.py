"""Our side of the input: the training stream itself."""

from benchmarks.work import STORED, Side, Work
from inception.data.folder import FolderSource
from inception.data.stream import train_stream


def data(work: Work) -> Side:
    """Batches of the stream, of the JPEG files in the config's data_dir."""
    augmentation = work.fields["augmentation"]
    batches = train_stream(
        FolderSource(work.fields["data_dir"], "train"),
        seed=0,
        image_size=work.size,
        batch_size=work.batch,
        augmentation=augmentation,
        threads=work.threads,
    )
    does = f"the training stream: crops and resizing of augmentation {augmentation}"
    return Side(lambda: next(batches), lambda: None, does, stored=STORED)
