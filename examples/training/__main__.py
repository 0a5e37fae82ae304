"""``python -m examples.training``: one command for each of the published training systems."""

from __future__ import annotations

import sys

try:
    import rich  # noqa: F401
    import threadpoolctl  # noqa: F401
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing: pip install '.[examples]'") from None

from examples.training.commands import autoencoder, dream, inception, keras_cnn, layer_times, transfer, zoo

app = typer.Typer(
    help="The published training systems, on convkit.",
    no_args_is_help=True,
    add_completion=False,
    # Under mpiexec a failure must reach mpi4py, which ends the other processes.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("keras-cnn")(keras_cnn.keras_cnn)
app.command("layer-times")(layer_times.layer_times)
app.command("inception")(inception.inception)
app.command("autoencoder")(autoencoder.autoencoder)
app.command("transfer")(transfer.transfer)
app.command("dream")(dream.dream)
app.command("zoo")(zoo.zoo)


def main() -> None:
    """Run a command; what the user can mend is said in one line, with exit code 2."""
    from examples.training.checkpoints import CheckpointError
    from examples.training.data import DataError
    from examples.training.group import join
    from examples.training.options import console
    from examples.training.trainer import Interrupted

    try:
        app()
    except (DataError, CheckpointError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        console.print(f"error: {error.name} is missing: pip install '.[examples]'", style="red", markup=False)
        raise SystemExit(2) from None
    except Interrupted:
        console.print("interrupted; the checkpoint is written: the same command with --resume goes on from there")
        raise SystemExit(130) from None
    except Exception as error:
        group = join()
        if group.size > 1:  # mpi4py ends the others after this
            said = f"process {group.rank} of {group.size} failed: {type(error).__name__}: {error}"
            print(f"{said}; the checkpoints of the last whole epoch are intact", file=sys.stderr, flush=True)
        raise


if __name__ == "__main__":
    main()
