"""The namespace's search attributes: which of Wonder's are registered, and registering those that are not."""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from wonder.names import SEARCH_ATTRIBUTES

_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
}


async def lacking(client: Client) -> list[str]:
    """Those of Wonder's search attributes that the client's namespace does not have."""
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return sorted(set(SEARCH_ATTRIBUTES) - set(known.custom_attributes))


async def registered(client: Client) -> bool:
    """Whether all are there; a server that does not tell is taken not to have them."""
    try:
        return not await lacking(client)
    except RPCError:
        return False


async def register(client: Client) -> list[str]:
    """Register those that are missing; their names."""
    names = await lacking(client)
    if names:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=client.namespace,
                search_attributes={name: _TYPES[SEARCH_ATTRIBUTES[name]] for name in names},
            )
        )
    return names
