"""The recipe's ``data``: the kinds of data sets and what each asks for."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from engine.config.file_names import FilePath
from engine.config.section import Section


class ShapesData(Section):
    """Procedural data: textured overlapping objects in colour-confusable class pairs, void borders."""

    kind: Literal["shapes"] = Field("shapes", description="shapes: drawn by a procedure; folder: images and masks")
    height: int = Field(96, ge=16, le=2048, description="image height, pixels")
    width: int = Field(96, ge=16, le=2048, description="image width, pixels")
    train: int = Field(64, ge=1, description="number of labelled training images")
    val: int = Field(32, ge=1, description="number of validation images")
    unlabelled: int = Field(0, ge=0, description="number of further images without labels, for proxy tasks")
    objects: tuple[int, int] = Field((3, 7), description="fewest and most objects per image")
    void_width: int = Field(1, ge=0, le=8, description="width of the void (255) border around objects, pixels")
    data_seed: int = Field(0, ge=0, description="seed of the images themselves, apart from the run's seed")


class FolderData(Section):
    """Any folder of images and index masks: ROOT/images/SPLIT/*.jpg|png, ROOT/labels/SPLIT/*.png, classes.txt."""

    kind: Literal["folder"] = Field("folder", description="shapes: drawn by a procedure; folder: images and masks")
    root: FilePath = Field("", description="folder that holds images, labels and the classes file")
    images: FilePath = Field("images/{split}", description="image folder below root; {split} is replaced")
    labels: FilePath = Field("labels/{split}", description="label folder below root; {split} is replaced")
    classes: str = Field("classes.txt", description="classes file below root, one name a line, in index order")
    train_split: str = Field("train", description="name of the training split")
    val_split: str = Field("val", description="name of the validation split")
    label_map: dict[str, int | str] = Field(
        default_factory=dict,
        description="what mask values mean, by index or name of the class, void or 255 = void: {255: thing, 0: void};"
        " values that are not named mean themselves",
    )
    void_labels: tuple[int, ...] = Field((255,), description="label values that mean void; mapped to 255")
    scale: float = Field(1.0, gt=0, le=1, description="resize factor applied once when decoding, 0-1")
    max_train: int | None = Field(None, ge=1, description="use only this many training images (chosen by data_seed)")
    max_val: int | None = Field(None, ge=1, description="use only this many validation images")
    data_seed: int = Field(0, ge=0, description="seed of the choice made by max_train and max_val")

    @field_validator("label_map", mode="before")
    @classmethod
    def _no_truths(cls, mapped: object) -> object:
        """What is no class at all; Python takes true for 1."""
        for value, target in mapped.items() if isinstance(mapped, dict) else ():
            if ":" in str(value):
                raise ValueError(f"{value} has no blank behind the colon: write for example {{255: 1}}")
            if isinstance(target, bool) or not isinstance(target, int | str):
                shown = "null" if target is None else str(target).lower()
                raise ValueError(f"{value}: {shown} is no class: write its index or name, or void")
        return mapped

    @field_validator("label_map")
    @classmethod
    def _mask_values(cls, mapped: dict[str, int | str]) -> dict[str, int | str]:
        for value in mapped:
            if not re.fullmatch("0|[1-9][0-9]{0,2}", value) or int(value) > 255:
                raise ValueError(f"{value} is no value of a mask: write 0 to 255, for example {{255: 1}}")
        for target in mapped.values():
            if isinstance(target, int) and not 0 <= target <= 255:
                raise ValueError(f"{target} is no class: write its index or name, or void")
        return mapped

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, standard: SerializerFunctionWrapHandler) -> dict[str, object]:
        """An empty map is left out, so that what was fingerprinted before there was one is still the same."""
        found: dict[str, object] = standard(self)
        if not self.label_map:
            found.pop("label_map", None)
        return found


class VocData(Section):
    """PASCAL VOC 2012 as it is unpacked: ROOT/JPEGImages, ROOT/SegmentationClass, ROOT/ImageSets/Segmentation."""

    kind: Literal["voc"] = Field("voc", description="PASCAL VOC 2012, with or without the SBD masks")
    root: FilePath = Field("", description="folder VOC2012, the one that holds JPEGImages")
    masks: str = Field("SegmentationClassAug", description="mask folder below root; SegmentationClass = without SBD")
    train_list: str = Field(
        "ImageSets/Segmentation/train_aug.txt", description="list of training images below root, one name a line"
    )
    val_list: str = Field("ImageSets/Segmentation/val.txt", description="list of validation images below root")
    val_masks: str = Field("SegmentationClass", description="mask folder of the validation images, below root")
    scale: float = Field(1.0, gt=0, le=1, description="resize factor applied once when decoding, 0-1")
    max_train: int | None = Field(None, ge=1, description="use only this many training images (chosen by data_seed)")
    max_val: int | None = Field(None, ge=1, description="use only this many validation images")
    data_seed: int = Field(0, ge=0, description="seed of the choice made by max_train and max_val")


class CityscapesData(Section):
    """Cityscapes in its official layout: ROOT/leftImg8bit/SPLIT/CITY, ROOT/gtFine/SPLIT/CITY; 19 trainIds."""

    kind: Literal["cityscapes"] = Field("cityscapes", description="Cityscapes, fine annotations")
    root: FilePath = Field("", description="folder that holds leftImg8bit and gtFine")
    masks: Literal["labelIds", "labelTrainIds"] = Field(
        "labelIds", description="which masks to read; labelIds are mapped to the 19 trainIds"
    )
    train_split: str = Field("train", description="name of the training split")
    val_split: str = Field("val", description="name of the validation split")
    scale: float = Field(1.0, gt=0, le=1, description="resize factor applied once when decoding, 0-1")
    max_train: int | None = Field(None, ge=1, description="use only this many training images (chosen by data_seed)")
    max_val: int | None = Field(None, ge=1, description="use only this many validation images")
    data_seed: int = Field(0, ge=0, description="seed of the choice made by max_train and max_val")


DataConfig = Annotated[ShapesData | FolderData | VocData | CityscapesData, Field(discriminator="kind")]
