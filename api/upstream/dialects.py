"""The two APIs that model servers speak."""

from api.upstream.counting import CHAT_WAYS, RESPONSES_WAYS
from api.upstream.http import Dialect
from api.upstream.messages import chat_request
from api.upstream.reply import ChatReply
from api.upstream.responses_reply import ResponsesReply
from api.upstream.responses_request import responses_request

CHAT_COMPLETIONS = Dialect("chat/completions", chat_request, ChatReply, CHAT_WAYS, counts_beside=True)
RESPONSES = Dialect("responses", responses_request, ResponsesReply, RESPONSES_WAYS)
