"""`feedsieve serve`: BentoML's server of the service in this package."""

import ipaddress

import click

from feedsieve.registry import current_model
from feedsieve.scoring.model_store import find_pair
from feedsieve.settings import documented, override, settings

SERVICE = "feedsieve.service:Feedsieve"


class _WithSettings(click.Command):
    """A command that lists all settings below its options."""

    def format_epilog(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, read from the environment"):
            formatter.write_dl(
                [
                    (variable, f"{description}  [default: {default}]" if default else description)
                    for variable, default, description in documented()
                ]
            )


def _address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))  # BentoML takes no names
    except ValueError:
        raise click.BadParameter("an IP address such as 127.0.0.1, or 0.0.0.0 for all") from None


@click.command(cls=_WithSettings)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    envvar="BENTOML_HOST",
    show_envvar=True,
    callback=_address,
    help="IP address to listen on; 0.0.0.0 listens on all interfaces.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=3000,
    show_default=True,
    envvar="BENTOML_PORT",
    show_envvar=True,
    help="Port to listen on.",
)
@click.option("--model", metavar="TAG", help="The classifier, in place of FEEDSIEVE_MODEL.")
@click.option("--db", metavar="FILE|URL", help="The message store, in place of FEEDSIEVE_DB.")
def serve(host: str, port: int, model: str | None, db: str | None) -> None:
    """Serve the feed, scores and operators' routes over HTTP until SIGTERM or Ctrl-C.

    The model is FEEDSIEVE_MODEL, or the champion of `python -m train.promote`, or else the newest
    in BentoML's model store (BENTOML_HOME). Without one the exit code is 1, and a line says where
    to get it. `bentoml serve feedsieve.service:Feedsieve` is the same server with BentoML's own
    options, such as those of TLS; it does not know the champion.
    """
    override(model=model, db=db or settings().db)  # workers that start later use the same store
    override(model=find_pair(current_model())[0])  # before a server is started
    click.echo(f"serving {settings().model}, unless another one was deployed", err=True)
    from bentoml_cli.cli import cli  # takes a second, which the other commands have no use for

    arguments = ["serve", SERVICE, "--host", host, "--port", str(port), "--do-not-track"]
    cli.main(arguments, "bentoml")  # in this process, whose signals and exit code are BentoML's
