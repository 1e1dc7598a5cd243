"""Google's protobuf for the tables under test: a dynamic message class per table, and values for hypothesis."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import strategies as st

from urunc.shim.wire import Table

Values = dict[str, Any]

FieldProto = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "uint32": FieldProto.TYPE_UINT32,
    "uint64": FieldProto.TYPE_UINT64,
    "int32": FieldProto.TYPE_INT32,
    "int64": FieldProto.TYPE_INT64,
    "bool": FieldProto.TYPE_BOOL,
    "enum": FieldProto.TYPE_ENUM,
    "string": FieldProto.TYPE_STRING,
    "bytes": FieldProto.TYPE_BYTES,
    "message": FieldProto.TYPE_MESSAGE,
    "map": FieldProto.TYPE_MESSAGE,
}


class Pool:
    """Message classes made from tables, in a pool of their own so that well-known names can be made again."""

    def __init__(self) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self.made: dict[str, str] = {}

    def message_class(self, table: Table) -> type[Message]:
        descriptor = self.pool.FindMessageTypeByName(self._add(table))
        return message_factory.GetMessageClass(descriptor)

    def _add(self, table: Table) -> str:
        if table.name in self.made:
            return self.made[table.name]
        nested = {field.number: self._add(field.table) for field in table.fields if field.table is not None}
        serial = len(self.made)
        file = descriptor_pb2.FileDescriptorProto(name=f"{serial}.proto", package=f"test{serial}", syntax="proto3")
        file.dependency.extend(sorted({f"{name[4:].partition('.')[0]}.proto" for name in nested.values()}))
        message = file.message_type.add(name="M")
        for field in table.fields:
            self._add_field(file, message, field, nested.get(field.number))
        self.pool.Add(file)  # type: ignore[no-untyped-call]
        self.made[table.name] = f"test{serial}.M"
        return self.made[table.name]

    @staticmethod
    def _add_field(file: Any, message: Any, field: Any, nested: str | None) -> None:
        made = message.field.add(name=field.name, number=field.number, type=KINDS[field.kind])
        made.label = FieldProto.LABEL_REPEATED if field.label or field.kind == "map" else FieldProto.LABEL_OPTIONAL
        if nested:
            made.type_name = f".{nested}"
        if field.kind == "enum":
            kind = file.enum_type.add(name=f"E{field.number}")
            kind.value.add(name=f"E{field.number}_ZERO", number=0)
            made.type_name = f".{file.package}.E{field.number}"
        if field.kind == "map":
            entry = message.nested_type.add(name=f"{''.join(p.title() for p in field.name.split('_'))}Entry")
            entry.options.map_entry = True
            for number, name in ((1, "key"), (2, "value")):
                entry.field.add(name=name, number=number, type=KINDS["string"], label=FieldProto.LABEL_OPTIONAL)
            made.type_name = f".{file.package}.M.{entry.name}"


def fill(message: Message, table: Table, values: Values) -> Message:
    """Set the fields of Google's message to those of ours."""
    for field in table.fields:
        value = values[field.name]
        if field.kind == "message":
            for item in value if field.label else [value] if value is not None else []:
                target = getattr(message, field.name)
                part = target.add() if field.label else target
                part.SetInParent()
                fill(part, field.table, item)
        elif field.kind == "map":
            getattr(message, field.name).update(value)
        elif field.label:
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)
    return message


def plain(message: Message, table: Table) -> Values:
    """Return Google's message as the dict that ours would be."""
    values: Values = {}
    for field in table.fields:
        value = getattr(message, field.name)
        if field.kind == "map":
            value = dict(value)
        elif field.kind == "message" and field.label:
            value = [plain(item, field.table) for item in value]
        elif field.kind == "message":
            value = plain(value, field.table) if message.HasField(field.name) else None
        elif field.label:
            value = list(value)
        values[field.name] = value
    return values


INTEGERS = {
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "enum": st.integers(-(2**31), 2**31 - 1),
}
SCALARS = {**INTEGERS, "bool": st.booleans(), "string": st.text(max_size=20), "bytes": st.binary(max_size=20)}


def values_of(table: Table) -> st.SearchStrategy[Values]:
    """Return a strategy for whole messages of the table."""
    return st.fixed_dictionaries({field.name: _values_of_field(field) for field in table.fields})


def _values_of_field(field: Any) -> st.SearchStrategy[Any]:
    if field.kind == "map":
        return st.dictionaries(SCALARS["string"], SCALARS["string"], max_size=3)
    one = values_of(field.table) if field.table is not None else SCALARS[field.kind]
    if field.label:
        return st.lists(one, max_size=3)
    return st.none() | one if field.kind == "message" else one
