"""A study of annotation budgets: 03 trains each network in each arm, with each seed, on each fold; 06 compares them.

    snakemake boxes --config study=demo_budget     one arm: all its networks, seeds and folds
"""

SEEDS = resolve("06_annotation_budget", STUDY)["seeds"]
ARM_RUN = LAYOUT.root / "arms" / "{arm}" / "seed{seed}" / "{model}" / "fold{fold}"
ARM_RESULTS = expand(ARM_RUN / "metrics.json", arm=ARMS, seed=SEEDS, model=MODELS, fold=FOLDS)
PRETRAINING = LAYOUT.root / "pretraining" / "seed{seed}" / "{model}" / "fold{fold}"


def arm_settings(wildcards):
    return resolve("03_train", STUDY, wildcards.model, int(wildcards.fold), wildcards.arm, int(wildcards.seed))


def taught_by(wildcards):
    """Files that an arm needs: its pretrained weights, or the networks of its teacher."""
    settings, which = arm_settings(wildcards), {"seed": wildcards.seed, "fold": wildcards.fold}
    if settings["unannotated"] == "pretraining":
        return [str(PRETRAINING / "metrics.json").format(**which, model=wildcards.model)]
    if settings["teacher"]:
        return expand(ARM_RUN / "metrics.json", arm=settings["teacher"], model=settings["models"], **which)
    return []


rule pretrain:
    input:
        LAYOUT.preprocessing_table,
    output:
        PRETRAINING / "metrics.json",
    log:
        PRETRAINING / "03b_pretrain.ipynb",
    params:
        notebook="03b_pretrain",
        code=code_hash("03b_pretrain"),
        settings=lambda w: resolve("03b_pretrain", STUDY, w.model, int(w.fold), seed=int(w.seed)),
    threads: training("job_cpus")
    resources:
        **TRAINING_RESOURCES,
    shell:
        RUN + " --model {wildcards.model} --fold {wildcards.fold} --seed {wildcards.seed}"


rule train_arm:
    input:
        LAYOUT.preprocessing_table,
        taught_by,
    output:
        ARM_RUN / "metrics.json",
    log:
        ARM_RUN / "03_train.ipynb",
    params:
        notebook="03_train",
        code=code_hash("03_train"),
        settings=arm_settings,
    threads: training("job_cpus")
    resources:
        **TRAINING_RESOURCES,
    shell:
        RUN + " --model {wildcards.model} --fold {wildcards.fold} --arm {wildcards.arm} --seed {wildcards.seed}"


for arm in ARMS:

    rule:
        name:
            arm
        localrule: True
        input:
            expand(ARM_RUN / "metrics.json", arm=arm, seed=SEEDS, model=MODELS, fold=FOLDS),
