"""Whoever types what nnU-Net v2 or TotalSegmentator takes learns in one line what to type here."""

import re
import shlex

import pytest

from autospine.cli import habits, reference
from autospine.cli.app import COMMANDS, load_commands, main

load_commands()
OURS = {
    name: {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    for name, command in reference.commands().items()
}

# The options that the tools' own --help lists: nnU-Net v2.6 and TotalSegmentator v2.
THEIRS = {
    "plan-and-preprocess": "-d -fpe -npfp --verify_dataset_integrity --no_pp --clean -pl -gpu_memory_target "
    "-preprocessor_name -overwrite_target_spacing -overwrite_plans_name -c -np --verbose --no_pbar",
    "fingerprint": "-d -fpe -np --verify_dataset_integrity --clean --verbose",
    "plan": "-d -pl -gpu_memory_target -preprocessor_name -overwrite_target_spacing -overwrite_plans_name",
    "preprocess": "-d -plans_name -c -np --verbose",
    "train": "-tr -p -pretrained_weights -num_gpus --npz --c --val --val_best --disable_checkpointing "
    "-device",
    "predict": "-i -o -d -p -tr -c -f -step_size --disable_tta --verbose --save_probabilities "
    "--continue_prediction -chk -npp -nps -prev_stage_predictions -num_parts -part_id -device "
    "--disable_progress_bar -ot --output_type -ml --ml -nr --nr_thr_resamp -ns --nr_thr_saving --fast "
    "-ff --fastest -t --nora_tag --preview -ta --task -rs --roi_subset -s --statistics -r --radiomics "
    "-sii --stats_include_incomplete -cp --crop_path -bs --body_seg -fs --force_split -ho "
    "--higher_order_resampling -ss --skip_saving -q --quiet -sp -v --verbose -l --license_number -rc "
    "--robust_crop -rmb --remove_small_blobs",
    "compare": "-p -c -tr -np -f --disable_ensembling --no_overwrite",
    "model export": "-d -o -c -tr -p -f -chk --not_strict --exp_cv_preds",
    "evaluate": "-djfile -pfile -o -np --chill",
}

LINES = {
    "train 0 -tr nnUNetTrainer_250epochs": "autospine plan --loss NAME",
    "train 0 --npz": "--save-probabilities",
    "train 0 -p nnUNetResEncUNetLPlans": "--network",
    "train 0 -device cuda": "give --device",
    "train 0 -pretrained_weights=x.pth": "give --pretrained",
    "train 2 3d_fullres 0": "`autospine train fullres -d 2 --fold 0`",
    "train Dataset002_Spine 3d_cascade_fullres all --npz": "--save-probabilities",
    "train 2 3d_cascade_fullres all": "`autospine train fullres -d 2 --fold full`",
    "train 2 2d 0": "`autospine train fullres -d 2 --fold 0`",
    "train 3d_lowres": "give lowres",
    "train fast 0": "`autospine train CONFIGURATION --fold 0`, found fast 0",
    "find_best_configuration 2": "`autospine compare -d 2`",
    "train fast 900": "`autospine train CONFIGURATION -d DATASET`, found fast 900",
    "plan-and-preprocess -d 1 --verify_dataset_integrity": "every case is verified",
    "plan-and-preprocess -d 1 -c 3d_fullres": "give fullres",
    "plan-and-preprocess -d 1 -np 8": "give --workers",
    "plan -d 1 -gpu_memory_target 24": "--memory` takes it, such as 24GB",
    "predict -i . -o out -chk checkpoint_best.pth": "one set of weights",
    "predict -i . -o out -step_size 0.5": "tiles overlap by half",
    "predict -i . -o out -npz": "give --save-probabilities",
    "predict -i . -o out --disable_tta": "--mirror",
    "predict -i . -o out -c 3d_fullres": "give fullres",
    "predict -i . -o out -d gpu:1": "give --device cuda:1",
    "predict -i . -o out -d cpu": "give --device cpu",
    "predict -i . -o out --task total": "-m",
    "predict -i . -o out -ta vertebrae_mr": "-m",
    "predict -i . -o out --fast": "-c fast",
    "predict -i . -o out --statistics": "statistics.csv is written beside the label maps",
    "train -c 3d_fullres": "give fullres",
    "train --configuration=3d_fullres": "give fullres",
    "train -d 2 3d_fullres": "give fullres",
    "train -c3d_lowres -d 2": "give lowres",
    "predict -i . -o out --roi_subset vertebrae_L1": "the classes of its model",
    "predict -i . -o out -ot nifti": "give --format",
    "evaluate out references -djfile dataset.json": "give --labels",
    "nnUNetv2_train 1 3d_fullres 0": "give `autospine train fullres -d 1 --fold 0`",
    "nnUNetv2_train 2 3d_lowres all --npz": "give `autospine train lowres -d 2 --fold full`",
    "nnUNetv2_train -d 2": "`autospine train CONFIGURATION -d 2 --fold FOLD`",
    "nnUNetv2_train 2 3d_fullres 5": "--fold FOLD`, and fold 5; name one from 0 to 4",
    "train 2 3d_fullres 5": "-d 2 --fold FOLD`, found the order of nnU-Net, and fold 5; name one from 0 to 4",
    "train 0 --fold 0 1 2": "give one --fold, and run the command once for each, or with --fold all",
    "train 0 --fold 0 --fold 1": "with --fold 0, then with --fold 1, or once with --fold all",
    "nnUNetv2_find_best_configuration 1": "`autospine compare -d 1`",
    "nnUNetv2_plan_and_preprocess -d 3 --verify_dataset_integrity": "`autospine plan-and-preprocess -d 3`",
    "nnUNetv2_predict -i 'my images' -o out -d 2 -c 3d_fullres": "predict -i 'my images' -o out -d 2`",
    "nnUNetv2_evaluate_folder": "`autospine evaluate PREDICTIONS REFERENCES`",
    "TotalSegmentator -i ct.nii.gz -o out -d gpu": "`autospine predict -i ct.nii.gz -o out`",
    "TotalSegmentator -i ct.nii.gz -o out": "`autospine predict",
}


@pytest.mark.parametrize("line", LINES)
def test_habits_get_a_hand(line, capsys):
    assert main(shlex.split(line)) == (1 if line.count("--fold") > 1 else 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert LINES[line] in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict -d 3", "missing -i; give `autospine predict -d 3 -i PATH -o OUTPUT`"),
        ("predict -i 'my images'", "missing -o; give `autospine predict -i 'my images' -o OUTPUT`"),
        ("evaluate", "missing predictions; give `autospine evaluate PREDICTIONS REFERENCES`"),
        ("evaluate out", "missing references; give `autospine evaluate out REFERENCES`"),
        ("model export", "missing -o; give `autospine model export -o OUTPUT`"),
        ("predict images out", "missing -i; give `autospine predict -i images -o out`"),
        ("predict -i images out --mirror", "missing -o; give `autospine predict -i images --mirror -o out`"),
        ("predict out --mirror", "missing -i; give `autospine predict --mirror -i out -o OUTPUT`"),
        ("predict -i a.nii b.nii c.nii", "missing -o; give -i before each, or a folder;"),
    ],
)
def test_what_is_missing_is_added_to_the_line(line, said, capsys):
    assert main(shlex.split(line)) == 2
    assert said in capsys.readouterr().err


def test_a_configuration_of_theirs_is_answered_with_what_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "results" / "Dataset002_Spine" / "fast"
    (model / "fold_0").mkdir(parents=True)
    (model / "fold_0" / "model.safetensors").touch()
    for words in ("", "-d 2", "--dataset Spine"):
        assert main(shlex.split(f"predict -i . -o out -c 3d_fullres {words}")) == 2
        assert "3d_fullres; give one that is trained: fast;" in capsys.readouterr().err
    assert main(shlex.split(f"predict -i . -o out -c 3d_fullres -w {tmp_path} -d 3")) == 2
    assert "3d_fullres; give fullres" in capsys.readouterr().err
    model.rename(model.with_name("fullres"))
    assert main(shlex.split("predict -i . -o out -c 3d_fullres")) == 2
    assert "3d_fullres; give fullres" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"), [(name, option) for name, options in THEIRS.items() for option in options.split()]
)
def test_every_option_of_theirs_is_ours_or_answered(command, option, capsys):
    if option not in OURS[command]:
        assert main([*command.split(), option, "x"]) == 2
        said = capsys.readouterr().err
        assert f"no such option: {option}; " in said
        assert not said.partition("; ")[2].startswith("see ")


@pytest.mark.parametrize("line", ["train 0 -xyz 3", "predict -i . -o out -trainer x"])
def test_words_of_one_dash_are_not_parsed_letter_by_letter(line, capsys):
    assert main(shlex.split(line)) == 2
    command, word = line.split()[0], re.findall(r"-[a-z]{2,}", line)[0]
    assert f"no such option: {word}; see `autospine {command} --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"), [(name, option) for name, table in habits.OPTIONS.items() for option in table]
)
def test_every_habit_is_answered_with_options_that_there_are(command, option, capsys):
    assert option not in OURS[command]
    assert main([*command.split(), option, "x"]) == 2
    said = capsys.readouterr().err
    assert f"no such option: {option}; " in said
    advice = said.partition("; ")[2].partition("; see")[0]
    of_another = [name for name in COMMANDS if f"`autospine {name}" in advice]
    known = OURS[of_another[0] if of_another else command]
    assert all(word in known for word in re.findall(r"(?<!\S)`?(-{1,2}[a-z][a-z-]*)", advice))


def test_what_is_ours_means_what_it_means_here(capsys):
    """`-f`, `-c` and `-d` are options of theirs, too."""
    assert main(["predict", "-i", "absent", "-o", "out", "-d", "1", "-c", "fast", "-f", "0"]) == 1
    assert "absent" in capsys.readouterr().err
