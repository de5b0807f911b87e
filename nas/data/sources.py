"""The table of data sources: how each is read, how its name is checked, and how its images may be augmented.

A new source is a reader in a file of its own, which returns `RawData`, and an entry of `SOURCES`. Readers import the
libraries that contain or open images only when they are called, so that names are known without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nas.data.augmentation import MIRRORS, NONE, TURNS, Augmentation
from nas.data.folders import read_folder, read_images
from nas.data.image_list import read_csv
from nas.data.installed import read_digits, read_photos
from nas.data.noise import Noise, OfData, parse_noise
from nas.data.noisy import NOISY_KINDS, read_noisy
from nas.data.npz import read_npz
from nas.data.pairs import read_pairs
from nas.data.preparation import Preparation
from nas.data.torchvision import TORCHVISION, plain, read_torchvision
from nas.errors import ConfigError
from nas.parsing import read_path

if TYPE_CHECKING:
    from nas.data.raw import RawData
    from nas.types import Task


def absolute(path: str) -> str:
    """Returns a path as it is stored, absolute and without links. Raises ValueError or RuntimeError for no path."""
    return str(read_path(path).expanduser().resolve())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source of images, or one kind of sources that differ by an argument.

    Attributes:
        read: reads the whole source from its name and the data root. A source with an argument receives the argument
            instead of the name. Raises DataError.
        argument: placeholder for the text after the colon of ``KIND:ARGUMENT``; empty for a source without one.
        canonical: the argument as studies store it. Raises ValueError or RuntimeError for one that is impossible.
        symmetries: the flips and turns that do not change the meaning of its images; None where nothing is known of
            them.
        files: whether it is a folder of image files. `read` then takes ``group_by`` too, and ``wanted`` where its
            images are not photographs (see `nas.data.splits.load`).
        patches: whether its images are patches of larger ones. A network then names the class of a larger image as it
            is, which is otherwise shrunk to the size of the training images.
        photographs: whether it is a folder of photographs of any size without classes. A search cuts them into
            patches, `train` draws random patches of them, and a bundle is judged on whole photographs.
        paired: whether each clean image comes with noisy ones of the same scene, so that the noise is the data's own.
        noisy: whether its images are noisy and no clean ones are known, so that the noise is the data's own as well.
        group: a name that short lists show instead of many similar sources.
    """

    read: Callable[..., RawData]
    argument: str = ""
    canonical: Callable[[str], str] = absolute
    symmetries: Augmentation | None = None
    files: bool = False
    patches: bool = False
    photographs: bool = False
    paired: bool = False
    noisy: bool = False
    group: str = ""

    @property
    def own_noise(self) -> bool:
        """Whether its images have noise of their own, so that none is added."""
        return self.paired or self.noisy


SOURCES: Mapping[str, Source] = {
    "digits": Source(read=lambda name, root: read_digits(), symmetries=NONE),
    "photos": Source(read=lambda name, root: read_photos(), symmetries=TURNS, patches=True),
    **{
        name: Source(read=read_torchvision, symmetries=each.symmetries, group="a torchvision set")
        for name, each in TORCHVISION.items()
    },
    "folder": Source(read=read_folder, argument="DIR", files=True),
    "csv": Source(read=read_csv, argument="FILE", files=True),
    "npz": Source(read=read_npz, argument="FILE"),
    "images": Source(read=read_images, argument="DIR", symmetries=TURNS, files=True, patches=True, photographs=True),
    "pairs": Source(read=read_pairs, argument="DIR", files=True, patches=True, paired=True),
    **{
        kind: Source(
            read=partial(read_noisy, kind=kind),
            argument="DIR",
            files=True,
            patches=True,
            noisy=True,
            group="noisy:DIR",
        )
        for kind in NOISY_KINDS
    },
}
"""The sources by name; a source with an argument by the text before its colon."""


def list_sources() -> tuple[str, ...]:
    """Returns the names that users may give; a source with an argument is ``KIND:ARGUMENT``."""
    return tuple(f"{name}:{source.argument}" if source.argument else name for name, source in SOURCES.items())


def sources_in_short() -> str:
    """Returns the sources in one line of help: ``digits, photos, a torchvision set, folder:DIR, ... or pairs:DIR``."""
    shown = [source.group or name for name, source in zip(list_sources(), SOURCES.values(), strict=True)]
    *most, last = dict.fromkeys(shown)
    return f"{', '.join(most)} or {last}"


def parse_source(source: str) -> str:
    """Returns the canonical name of a source: ``FashionMNIST`` -> ``fashion-mnist``, folders as absolute paths.

    Nothing is read.

    Raises:
        ConfigError: the name is unknown, or its argument is missing or impossible.
    """
    kind, colon, argument = source.strip().partition(":")
    kind = kind.lower()
    if colon and kind in SOURCES and (wanted := SOURCES[kind].argument):
        if not argument:
            raise ConfigError(f"data {source!r}: {wanted} is missing; give {kind}:{wanted}")
        try:
            return f"{kind}:{SOURCES[kind].canonical(argument)}"
        except (RuntimeError, ValueError) as error:  # an unknown ~user, a loop of links, a null character
            raise ConfigError(f"data {source!r}: {wanted} cannot be this ({error}); give {kind}:{wanted}") from error
    names = {plain(name): name for name, each in SOURCES.items() if not each.argument}
    if plain(source) not in names or colon:
        raise ConfigError(f"data {source!r}: unknown; give one of {', '.join(list_sources())}")
    return names[plain(source)]


def preparation_for(name: str, task: Task) -> Preparation | None:
    """Returns the form in which a network for a task saw the images of a source; None where it names no classes, or
    saw patches of larger images.

    The name may be that of a source of which nothing else is known.
    """
    source = SOURCES.get(name.partition(":")[0])
    if not task.classifies or (source is not None and source.patches):
        return None
    return Preparation(height=task.height, width=task.width, channels=task.channels)


def source_of(name: str) -> Source:
    """Returns the entry of a canonical name."""
    return SOURCES[name.partition(":")[0]]


def check_paired(name: str, pair_by: str | None) -> None:
    """Refuses an expression that pairs images for a source, by its canonical name, that has no pairs (ConfigError)."""
    if pair_by is not None and not source_of(name).paired:
        raise ConfigError(f"`pair_by` {pair_by!r}: {name} has no pairs; it is for pairs:DIR")


def noise_for(name: str, wanted: str | None, usual: str) -> Noise:
    """Returns the noise of a data source.

    Args:
        name: canonical name of the source.
        wanted: the noise that is asked for; None for the data's own where it has one, and `usual` otherwise.
        usual: the noise of a study or a bundle, or a default.

    Raises:
        ConfigError: noise is to be added to data that has its own, or the data's own is asked for and it has none.
    """
    noise = parse_noise(wanted or usual)
    if source_of(name).own_noise:
        if wanted is not None and noise != OfData():
            raise ConfigError(f"noise {wanted!r}: {name} has noisy images of its own; leave `noise` out, or give data")
        return OfData()
    if noise == OfData():
        raise ConfigError(
            f"noise 'data': {name} has no noisy images beside the clean ones; give a `noise` that is added, such as "
            "gaussian:50, or pairs:DIR or noisy:DIR as `data`"
        )
    return noise


def augmentation_for(name: str, wanted: bool | None = None, *, labelled: bool = True) -> Augmentation:
    """Chooses the augmentation that suits a data source.

    Args:
        name: canonical name of the source.
        wanted: False for no augmentation. True to flip images of which nothing is known, and to be refused an
            augmentation that would break the data.
        labelled: whether its images have classes, which a flip or turn may change. Images with noise of their own are
            photographs without them.

    Raises:
        ConfigError: augmentation is wanted and the data allows none.
    """
    source = source_of(name)
    suits = TURNS if source.own_noise and not labelled else source.symmetries
    if wanted is False:
        return NONE
    if wanted and suits == NONE:
        raise ConfigError(f"`augment`: flips and turns would change what {name} shows; leave it out")
    if suits is None:
        return MIRRORS if wanted else NONE
    return suits
