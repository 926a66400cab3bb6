"""Habits of nnU-Net v2 and TotalSegmentator: their commands and options, and what to give here instead."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

from autospine.core.errors import AutospineError
from autospine.storage.trained_models import FOLDS
from autospine.storage.workspace import Workspace

COMMANDS: Mapping[str, str] = {
    "nnUNetv2_plan_and_preprocess": "autospine plan-and-preprocess -d DATASET",
    "nnUNetv2_extract_fingerprint": "autospine fingerprint -d DATASET",
    "nnUNetv2_plan_experiment": "autospine plan -d DATASET",
    "nnUNetv2_preprocess": "autospine preprocess -d DATASET",
    "nnUNetv2_train": "autospine train CONFIGURATION -d DATASET --fold FOLD",
    "nnUNetv2_predict": "autospine predict -i IMAGES -o OUTPUT",
    "nnUNetv2_predict_from_modelfolder": "autospine predict -i IMAGES -o OUTPUT -m MODEL",
    "nnUNetv2_find_best_configuration": "autospine compare -d DATASET",
    "nnUNetv2_ensemble": "autospine predict -i IMAGES -o OUTPUT -m MODEL -m ANOTHER",
    "nnUNetv2_evaluate_folder": "autospine evaluate PREDICTIONS REFERENCES",
    "nnUNetv2_evaluate_simple": "autospine evaluate PREDICTIONS REFERENCES --labels dataset.json",
    "nnUNetv2_accumulate_crossval_results": "autospine train CONFIGURATION -d DATASET --fold all",
    "nnUNetv2_determine_postprocessing": "autospine train CONFIGURATION -d DATASET --fold all",
    "nnUNetv2_apply_postprocessing": "autospine predict -i IMAGES -o OUTPUT",
    "nnUNetv2_convert_MSD_dataset": "autospine convert dataset --from msd -i IMAGES -o OUTPUT",
    "nnUNetv2_convert_old_nnUNet_dataset": ("autospine convert dataset --from nnunet-v1 -i IMAGES -o OUTPUT"),
    "nnUNetv2_move_plans_between_datasets": "autospine train CONFIGURATION -d DATASET --pretrained MODEL",
    "nnUNetv2_plot_overlay_pngs": "autospine predict -i IMAGES -o OUTPUT --preview",
    "nnUNetv2_export_model_to_zip": "autospine model export -o FILE.autospine",
    "nnUNetv2_install_pretrained_model_from_zip": "autospine model import FILE.autospine",
    "nnUNetv2_download_pretrained_model_by_url": "autospine model import FILE.autospine",
    "TotalSegmentator": "autospine predict -i IMAGE -o OUTPUT",
}
"""For each command of theirs the one here."""

_LEAVE = "leave it out: "
EVERYWHERE: Mapping[str, str] = {
    "-device": "give --device",
    "-p": "leave it out: a dataset has one plan, and `autospine plan --network` chooses its networks",
    "-plans_name": _LEAVE + "a dataset has one plan",
    "--verbose": "give --debug, which adds tracebacks",
    "-v": "give --debug, which adds tracebacks",
    "-num_gpus": _LEAVE + "folds train side by side on all GPUs",
}
"""For their options that any command may be given, what to do here."""

_PLANNING: Mapping[str, str] = {
    "--verify_dataset_integrity": _LEAVE + "every case is verified",
    "-pl": "`autospine plan --network` chooses the networks to plan for",
    "-gpu_memory_target": "`autospine plan --memory` takes it, such as 24GB",
    "-overwrite_target_spacing": "`autospine plan --spacing` takes it, as S P L",
    "-overwrite_plans_name": _LEAVE + "a plan that is replaced is kept as plan.json.old",
    "--no_pp": "run `autospine plan`",
    "-fpe": _LEAVE + "there is one way to measure a dataset",
    "-preprocessor_name": _LEAVE + "there is one preprocessing, and `autospine plan` sets what it does",
    "--no_pbar": _LEAVE + "progress is lines where there is no terminal",
    "--clean": _LEAVE + "what has changed is measured anew",
}
_WORKERS: Mapping[str, str] = {"-np": "give --workers", "-npfp": "give --workers"}
_TRAINING: Mapping[str, str] = {
    "-np": "give --workers",
    "-tr": _LEAVE + "loss and network are planned, with `autospine plan --loss NAME --network NAME`",
    "-npz": _LEAVE + "`autospine predict --save-probabilities` writes probabilities",
    "--npz": _LEAVE + "`autospine predict --save-probabilities` writes probabilities",
    "--c": _LEAVE + "an interrupted training is resumed by itself",
    "--val": _LEAVE + "a complete fold is validated if it has not been",
    "--val_best": _LEAVE + "a complete fold is validated with its averaged weights",
    "-pretrained_weights": "give --pretrained",
    "--use_compressed": _LEAVE + "stored cases are read compressed",
    "--disable_checkpointing": _LEAVE + "checkpoints go when a fold is complete",
}
_PREDICTION: Mapping[str, str] = {
    "-chk": _LEAVE + "a complete fold has one set of weights",
    "-tr": _LEAVE + "a model is named with -m, or with -d and -c",
    "-p": "give --preview for pictures; for plans leave it out, as a model has one",
    "-step_size": _LEAVE + "tiles overlap by half",
    "--disable_tta": _LEAVE + "nothing is mirrored unless --mirror is given",
    "-npz": "give --save-probabilities",
    "--save_probabilities": "give --save-probabilities",
    "--continue_prediction": "give --continue",
    "-npp": _LEAVE + "the number of processes follows from the cores",
    "-nps": _LEAVE + "the number of processes follows from the cores",
    "-num_parts": "give --part I/N, such as --part 1/4",
    "-part_id": "give --part I/N, of which I is theirs + 1, such as --part 1/4",
    "-prev_stage_predictions": _LEAVE + "a coarse model that is there locates the spine by itself",
    "--disable_progress_bar": _LEAVE + "progress is lines where there is no terminal",
    "--statistics": _LEAVE + "statistics.csv is written beside the label maps",
    "-s": _LEAVE + "statistics.csv is written beside the label maps",
    "--radiomics": _LEAVE + "statistics.csv has volumes and intensities; no texture is measured",
    "-r": _LEAVE + "statistics.csv has volumes and intensities; no texture is measured",
    "--remove_small_blobs": _LEAVE + "held-out cases choose what is removed; --no-postprocessing keeps all",
    "-rmb": _LEAVE + "held-out cases choose what is removed; --no-postprocessing keeps all",
    "--nr_thr_resamp": _LEAVE + "the number of processes follows from the cores",
    "-nr": _LEAVE + "the number of processes follows from the cores",
    "--nr_thr_saving": _LEAVE + "the number of processes follows from the cores",
    "-ns": _LEAVE + "the number of processes follows from the cores",
    "--robust_crop": _LEAVE + "a coarse model that is there locates the spine by itself",
    "-rc": _LEAVE + "a coarse model that is there locates the spine by itself",
    "--crop_path": _LEAVE + "a coarse model that is there locates the spine by itself",
    "-cp": _LEAVE + "a coarse model that is there locates the spine by itself",
    "--higher_order_resampling": _LEAVE + "scores are resampled, so that borders are smooth",
    "-ho": _LEAVE + "scores are resampled, so that borders are smooth",
    "--skip_saving": _LEAVE + "`model.predict` in Python returns label maps without writing them",
    "-ss": _LEAVE + "`model.predict` in Python returns label maps without writing them",
    "-sp": "give --save-probabilities",
    "--stats_include_incomplete": _LEAVE + "statistics.csv says which structures touch the border",
    "-sii": _LEAVE + "statistics.csv says which structures touch the border",
    "--nora_tag": _LEAVE + "`--format` chooses how label maps are written",
    "-t": _LEAVE + "`--format` chooses how label maps are written",
    "--license_number": _LEAVE + "there is no licence number",
    "-l": _LEAVE + "there is no licence number",
    "--task": "name a model with -m",
    "-ta": "name a model with -m",
    "--ml": _LEAVE + "every label map holds all classes",
    "-ml": _LEAVE + "every label map holds all classes",
    "--fast": "give -c fast",
    "--fastest": "give -c fast",
    "-ff": "give -c fast",
    "--roi_subset": _LEAVE + "a label map holds the classes of its model",
    "-rs": _LEAVE + "a label map holds the classes of its model",
    "--body_seg": _LEAVE + "tiles that contain only air are skipped unless --no-roi is given",
    "-bs": _LEAVE + "tiles that contain only air are skipped unless --no-roi is given",
    "--force_split": _LEAVE + "large images are predicted in slabs",
    "-fs": _LEAVE + "large images are predicted in slabs",
    "--output_type": "give --format",
    "-ot": "give --format",
    "--quiet": _LEAVE + "progress goes to standard error, so that `2> file` keeps it away",
    "-q": _LEAVE + "progress goes to standard error, so that `2> file` keeps it away",
}
_COMPARISON: Mapping[str, str] = {
    "-tr": _LEAVE + "all models of the dataset are compared, or those named with -c",
    "-np": _LEAVE + "the number of processes follows from the cores",
    "-f": _LEAVE + "the held-out cases of all complete folds are compared",
    "--disable_ensembling": _LEAVE + "pairs of models are compared, too",
    "--no_overwrite": _LEAVE + "what has not changed is kept",
}
_EXPORT: Mapping[str, str] = {
    "-tr": _LEAVE + "a model is named with -m, or with -d",
    "-c": "name the model's folder with -m",
    "-chk": _LEAVE + "a complete fold has one set of weights",
    "--not_strict": "name the folds that are complete with -f",
    "--exp_cv_preds": _LEAVE + "the scores are exported, and no label map",
}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "plan-and-preprocess": {**_PLANNING, **_WORKERS},
    "fingerprint": {**_PLANNING, **_WORKERS},
    "plan": _PLANNING,
    "preprocess": {**_PLANNING, **_WORKERS},
    "train": _TRAINING,
    "predict": _PREDICTION,
    "compare": _COMPARISON,
    "model export": _EXPORT,
    "evaluate": {
        "-djfile": "give --labels",
        "-pfile": _LEAVE + "the labels are all that it is needed for",
        "-np": _LEAVE + "the number of processes follows from the cores",
        "-pred": "name the folder of predictions first, without an option",
        "-ref": "name the folder of references second, without an option",
        "--chill": _LEAVE + "cases of one folder alone are named, and the others compared",
    },
}
"""For the options of theirs what to do here, by command."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The configuration here that stands for one of nnU-Net."""

    name: str
    note: str = ""
    """Remark that continues a sentence which ends in the name."""

    @property
    def advice(self) -> str:
        """Name what to give, in words."""
        return f"{self.name}{self.note}"


CONFIGURATIONS: Mapping[str, Counterpart] = {
    "3d_fullres": Counterpart("fullres"),
    "3d_lowres": Counterpart("lowres"),
    "3d_cascade_fullres": Counterpart("fullres", ", which a `lowres` model helps by itself"),
    "2d": Counterpart("fullres", " or fast, as there is no network of slices"),
}
"""For each configuration of nnU-Net the one here."""

DEVICES = ("gpu", "cpu", "mps")
"""Values of TotalSegmentator's `-d`, which names a dataset here."""

_PREDICTING = ("predict", "compare", "model info")
"""Commands whose `-c` names the configuration of a trained model."""

_FILLED: Mapping[str, str] = {"-i": "IMAGES", "-o": "OUTPUT", "-m": "MODEL", "-d": "DATASET"}
"""Options of theirs, and the words of `COMMANDS` that stand for their value."""


def option_habit(command: str, words: Sequence[str], own: Collection[str]) -> str | None:
    """Return what to say of the first option of theirs on a command line, if there is one.

    Words of one dash and several letters, as all of theirs are spelt, would be parsed letter by letter here.
    Those that no table has are named as a whole.

    Args:
        command: Name of our command.
        words: Words after it.
        own: Its own options, which mean what they mean here.
    """
    known = {**EVERYWHERE, **OPTIONS.get(command, {})}
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        option = word.partition("=")[0]
        if option in known and option not in own:
            return f"no such option: {option}; {known[option]}"
        if command == "predict" and option == "-d" and value.partition(":")[0] in DEVICES:
            device = value.replace("gpu", "cuda")
            return f"-d names a dataset, found {value}; give --device {device}"
        if (named := _configuration(word, value)) in CONFIGURATIONS:
            trained = _trained(words) if command in _PREDICTING else []
            if trained and CONFIGURATIONS[named].name not in trained:
                return f"no such configuration: {named}; give one that is trained: {', '.join(trained)}"
            return f"no such configuration: {named}; give {CONFIGURATIONS[named].advice}"
        if (
            len(option) > 2
            and option[0] == "-" != option[1]
            and option[1].isalpha()
            and option[:2] not in own
        ):
            return f"no such option: {option}"
    return None


def _configuration(word: str, value: str) -> str:
    """Return what `-c NAME`, `-cNAME`, `--configuration NAME` or `--configuration=NAME` names, or nothing."""
    if word in ("-c", "--configuration"):
        return value
    option, _, given = word.partition("=")
    return given if option == "--configuration" else word[2:] if word.startswith("-c") else ""


def argument_habit(command: str, words: Sequence[str]) -> str | None:
    """Return what to say of nnU-Net's `train DATASET CONFIGURATION FOLD`, or of two of these words."""
    if command != "train":
        return None
    plain = [word for word in words[:3] if not word.startswith("-")]
    if len(plain) < 3:
        for before, word in zip(("", *words), words, strict=False):
            # What follows an option is its value, but for the value of an option before.
            if word in CONFIGURATIONS and not before.startswith("-"):
                return f"no such configuration: {word}; give {CONFIGURATIONS[word].advice}"
        first, second = (*words[:2], "-", "-")[:2]
        if first.startswith("-") or second.startswith("-"):
            return None
        option = f"--fold {second}" if second in ("all", "full", *map(str, range(FOLDS))) else "-d DATASET"
        return f"expected `autospine train CONFIGURATION {option}`, found {first} {second}"
    line, note = _training_line(*plain)
    return f"expected `{line}`, found the order of nnU-Net{note}"


def command_habit(words: Sequence[str]) -> str | None:
    """Return what to give in the place of a command of theirs, with the values that came with it.

    Args:
        words: The command line, from the command on.
    """
    name, *given = words
    known = {theirs.lower(): ours for theirs, ours in COMMANDS.items()}
    ours = known.get(name.lower()) or known.get(f"nnunetv2_{name.lower()}")
    if ours is None or ours.split()[1] == name:  # `predict` is a command here, too
        return None
    plain = [word for word in given[:3] if not word.startswith("-")]
    if name.lower() == "nnunetv2_train" and len(plain) == 3:
        line, note = _training_line(*plain)
        return f"`{line}`{note}"
    values = {option: value for option, value in pairwise(given) if option in _FILLED}
    if plain and plain[0] == given[0] and "-d" not in values:
        values["-d"] = plain[0]
    line = ours
    for option, value in values.items():
        for word in (_FILLED[option], _FILLED[option].removesuffix("S")):
            line = " ".join(shlex.quote(value) if part == word else part for part in line.split(" "))
    if line.startswith("autospine predict") and "-m" not in values and "-d" in values:
        chosen = values["-d"].partition(":")[0]
        line += "" if chosen in DEVICES else f" -d {shlex.quote(values['-d'])}"
    return f"`{line}`"


def _training_line(dataset: str, configuration: str, fold: str) -> tuple[str, str]:
    """Return our command for nnU-Net's `train DATASET CONFIGURATION FOLD`, and a remark on its gaps."""
    ours = CONFIGURATIONS.get(configuration, Counterpart(configuration)).name
    known = {"all": "full", **{str(number): str(number) for number in range(FOLDS)}}
    line = f"autospine train {shlex.quote(ours)} -d {shlex.quote(dataset)} --fold {known.get(fold, 'FOLD')}"
    if fold in known:
        return line, ""
    return line, f", and fold {fold}; name one from 0 to {FOLDS - 1}, unless you gave other folds, or full"


def _trained(words: Sequence[str]) -> list[str]:
    """Return the names of the models in the workspace of a command line, of its dataset if it names one."""
    given = dict(pairwise(words))
    place = given.get("-w", given.get("--workspace"))
    try:
        workspace = Workspace.locate(None if place is None else Path(place))
        return sorted(path.name for path in workspace.last_models(given.get("-d", given.get("--dataset"))))
    except AutospineError:
        return []
