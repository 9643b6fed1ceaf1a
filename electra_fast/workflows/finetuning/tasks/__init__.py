"""The tasks, a module each; `electra_fast.workflows.finetuning.task.TASKS` says which is where."""
