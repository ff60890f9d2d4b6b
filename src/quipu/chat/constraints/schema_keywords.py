"""What happens to each keyword of JSON Schema: enforced, an annotation that enforces nothing, or refused.

Names are those of JSON Schema drafts 4 to 2020-12 (https://json-schema.org/specification) and of OpenAPI 3.
"""

from __future__ import annotations

# Say something to people or programs, and allow and forbid nothing.
ANNOTATIONS = frozenset(
    {
        "$comment",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    }
)

# Name schemas and places; followed where a reference uses them.
REFERENCE_KEYWORDS = frozenset({"$anchor", "$defs", "$id", "$schema", "definitions", "id"})

# Meaningful only beside a keyword that is refused itself, and without effect where it is missing.
IDLE_ALONE = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}

REFUSED = frozenset(
    {
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveAnchor",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "not",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# Formats that the library enforces on strings.
FORMATS = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})

# Hints to people and to the storage of a value, from OpenAPI's registry: every value of the type has them.
IDLE_FORMATS = frozenset({"password", "double", "float"})

# ISO 8601 with the leap years right, where the library would allow 29 February in any year.
_LEAP_YEAR = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    rf"02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

# Formats that become patterns.
FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "json-pointer": r"^(?:/(?:[^/~]|~[01])*)*$",
}

# A property or a constant may hold these; other control characters would need an escape that is not offered, because
# it would let the model write one key in several ways.
WRITABLE_CONTROLS = frozenset("\b\f\n\r\t")
