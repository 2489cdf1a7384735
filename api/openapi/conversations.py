"""The endpoints of conversations and their items."""

from api.openapi.failures import WITH_ID
from api.openapi.notation import Json, ref
from api.openapi.operations import (
    IDEMPOTENCY_KEY,
    ITS_ID,
    METADATA_FILTER,
    PAGING,
    SEARCH,
    json_answer,
    json_body,
    linked,
    operation,
    path_id,
)

TAG = "Conversations"
CONVERSATION_ID = path_id("conversation_id", "conv_")
ITEM_ID = path_id("item_id", "msg_")
OF_CONVERSATION = ("get_conversation", "update_conversation", "list_items", "create_items", "delete_conversation")
OF_ITEM = ("get_item", "delete_item")
HELLO: Json = {"type": "message", "role": "user", "content": "Hello!"}

PATHS: dict[str, Json] = {
    "/v1/conversations": {
        "get": operation(
            TAG,
            "list_conversations",
            "List the conversations",
            json_answer("ConversationList"),
            parameters=[*PAGING, METADATA_FILTER, SEARCH],
            errors=(400,),
            description="Newest first. What was done a moment ago shows at once.",
        ),
        "post": operation(
            TAG,
            "create_conversation",
            "Begin a conversation",
            linked(json_answer("Conversation"), *OF_CONVERSATION, conversation_id=ITS_ID),
            body=json_body(
                "CreateConversation",
                {"empty": {}, "with items": {"items": [HELLO], "metadata": {"topic": "greetings"}}},
                required=False,
            ),
            parameters=[IDEMPOTENCY_KEY],
            errors=(409,),
        ),
    },
    "/v1/conversations/{conversation_id}": {
        "get": operation(
            TAG,
            "get_conversation",
            "Read a conversation",
            json_answer("Conversation"),
            parameters=[CONVERSATION_ID],
            errors=(404,),
        ),
        "post": operation(
            TAG,
            "update_conversation",
            "Replace the metadata",
            json_answer("Conversation"),
            body=json_body("UpdateConversation", {"a topic": {"metadata": {"topic": "weather"}}}),
            parameters=[CONVERSATION_ID, IDEMPOTENCY_KEY],
            errors=(404, 409),
        ),
        "delete": operation(
            TAG,
            "delete_conversation",
            "Delete a conversation with its items",
            json_answer("ConversationDeleted"),
            parameters=[CONVERSATION_ID],
            errors=(404, 409),
        ),
    },
    "/v1/conversations/{conversation_id}/export": {
        "get": operation(
            TAG,
            "export_conversation",
            "Export a whole conversation",
            {
                "description": "A line of JSON each: the conversation, then its items, oldest first. A connection that "
                "breaks before its end means that something is missing.",
                "headers": WITH_ID,
                "content": {"application/x-ndjson": {"schema": ref("ExportedLine")}},
            },
            parameters=[CONVERSATION_ID],
            errors=(404,),
        ),
    },
    "/v1/conversations/{conversation_id}/items": {
        "get": operation(
            TAG,
            "list_items",
            "List the items",
            json_answer("ConversationItemList"),
            parameters=[CONVERSATION_ID, *PAGING],
            errors=(400, 404),
        ),
        "post": operation(
            TAG,
            "create_items",
            "Add items",
            linked(
                json_answer("ConversationItemList", "The new items."),
                *OF_ITEM,
                conversation_id="$request.path.conversation_id",
                item_id="$response.body#/data/0/id",
            ),
            body=json_body("CreateItems", {"a message": {"items": [HELLO]}}),
            parameters=[CONVERSATION_ID, IDEMPOTENCY_KEY],
            errors=(404, 409),
        ),
    },
    "/v1/conversations/{conversation_id}/items/{item_id}": {
        "get": operation(
            TAG,
            "get_item",
            "Read an item",
            json_answer("ConversationItem"),
            parameters=[CONVERSATION_ID, ITEM_ID],
            errors=(404,),
        ),
        "delete": operation(
            TAG,
            "delete_item",
            "Delete an item",
            json_answer("Conversation", "The conversation without it."),
            parameters=[CONVERSATION_ID, ITEM_ID],
            errors=(404, 409),
        ),
    },
}
