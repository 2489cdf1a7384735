"""TLS to the stores: what their certificates are checked against, and in which words one is refused."""

import ssl
from ssl import SSLContext

# What asyncpg says of a server that was not set up for TLS; it has no class of its own.
_NO_TLS = "rejected SSL upgrade"


def verifying(authorities: str) -> SSLContext:
    """A server must have a certificate for its name from one of these authorities (PEM), or of the machine's if empty.

    Raises ValueError for what is no PEM. To make one takes some 20 ms, so all connections of a client share it.
    """
    try:
        context = ssl.create_default_context(cadata=authorities or None)
    except (ssl.SSLError, TypeError) as error:
        raise ValueError("no certificate in PEM form") from error
    # From Python 3.13 on the default refuses certificates that lack what RFC 5280 asks for and no other client misses,
    # as those of many private authorities do.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def unverified() -> SSLContext:
    """What is sent can't be read on its way, but who the server is remains unknown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def refusal(error: BaseException) -> str | None:
    """Why TLS did not come about, in words; None when something else went wrong."""
    link: BaseException | None = error
    while link is not None:
        match link:
            case ssl.SSLCertVerificationError():
                return f"its certificate is refused: {link.verify_message}"
            case ssl.SSLError():
                return f"TLS failed: {link.reason or link}"
            case ConnectionError() if _NO_TLS in str(link):
                return "it does not speak TLS"
        link = link.__cause__ or link.__context__
    return None
