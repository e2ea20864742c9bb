"""A recursive-descent parser of the Cosmos DB SQL that our code and the SDK send.

It is strict on purpose: any other clause, function or operator is a 400, so that a
query nobody has thought about cannot pass the tests by luck. Grammar of the service:
docs, nosql/query/ (select.md, from.md, where.md, order-by.md, offset-limit.md,
keywords.md, subquery.md, constants.md).
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from emulators.cosmos.errors import bad_request
from emulators.cosmos.sql_tree import (
    Both,
    Call,
    Comparison,
    Either,
    ExistsIn,
    Field,
    InList,
    LikePattern,
    Literal,
    Node,
    Operand,
    Parameter,
    Path,
    SortKey,
    Statement,
    Truth,
)

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<parameter>@[A-Za-z_]\w*)
  | (?P<placeholder>\{documentdb-formattableorderbyquery-filter\})
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign><=|>=|!=|<>|[=<>(),.*\[\]{}:])
)""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(  # words that are no names
    [
        "SELECT",
        "TOP",
        "VALUE",
        "FROM",
        "WHERE",
        "ORDER",
        "BY",
        "ASC",
        "DESC",
        "OFFSET",
        "LIMIT",
        "AND",
        "OR",
        "IN",
        "LIKE",
        "ESCAPE",
        "EXISTS",
        "NOT",
        "BETWEEN",
        "JOIN",
        "GROUP",
        "DISTINCT",
    ]
)


_FUNCTIONS = {
    "STARTSWITH": 2,
    "ARRAY_CONTAINS": 2,
    "IS_DEFINED": 1,
    "IS_STRING": 1,
    "IS_NUMBER": 1,
}
"""Names and numbers of arguments (docs: nosql/query/system-functions.md)."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def keyword(self) -> str:
        """The word in capitals, or the sign."""
        return self.text.upper() if self.kind == "word" else self.text


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise bad_request(f"Syntax error near '{text[position : position + 20]}'.")
        kind = found.lastgroup
        tokens.append(_Token(kind, found[kind], found.start(kind)))
        position = found.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _string(text: str) -> str:
    """Value of a string constant (docs: nosql/query/constants.md, escapes as JSON)."""
    inner = text[1:-1]
    if text[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        value: str = json.loads(f'"{inner}"', strict=False)
    except ValueError as error:
        raise bad_request(f"Syntax error, invalid string token {text}.") from error
    return value


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    # --- tokens

    def _peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, *keywords: str) -> bool:
        """Whether these come next; they are taken then."""
        for ahead, keyword in enumerate(keywords):
            if self._peek(ahead).keyword != keyword:
                return False
        self._at += len(keywords)
        return True

    def _expect(self, *keywords: str) -> None:
        for keyword in keywords:
            token = self._next()
            if token.keyword != keyword:
                raise bad_request(
                    f"Syntax error, incorrect syntax near '{token.text}'"
                    f" (expected {keyword}) in: {self._text}"
                )

    def _name(self) -> str:
        token = self._next()
        if token.kind != "word" or token.keyword in _KEYWORDS:
            raise bad_request(f"Syntax error near '{token.text}': a name is expected.")
        return token.text

    # --- statement

    def statement(self) -> Statement:
        """The whole text as one SELECT."""
        self._expect("SELECT")
        top = self._operand() if self._accept("TOP") else None
        fields, aggregate, merged, named = self._selection()
        self._expect("FROM")
        alias = self._alias()
        if named not in {None, alias}:
            raise bad_request(f"Identifier '{named}' could not be resolved.")
        where = self._condition_or_true(alias)
        order = self._order(alias)
        offset = limit = None
        if self._accept("OFFSET"):
            offset = self._operand()
            self._expect("LIMIT")
            limit = self._operand()
        self._expect_end()
        return Statement(
            alias, fields, where, order, top, offset, limit, aggregate, merged
        )

    def condition_clause(self) -> tuple[str, Node]:
        """`FROM c WHERE ...`: the condition of a patch."""
        self._expect("FROM")
        alias = self._name()
        self._expect("WHERE")
        node = self._either(alias)
        self._expect_end()
        return alias, node

    def _alias(self) -> str:
        """`c`, or `root r` as the SDK asks for offers."""
        name = self._name()
        follows = self._peek()
        if follows.kind == "word" and follows.keyword not in _KEYWORDS:
            return self._name()
        return name

    def _expect_end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise bad_request(f"Syntax error, incorrect syntax near '{token.text}'.")

    def _selection(
        self,
    ) -> tuple[tuple[Path, ...] | None, str | None, bool, str | None]:
        if self._accept("*"):
            return None, None, False, None
        if self._accept("VALUE"):
            self._expect("COUNT", "(", "1", ")")
            return None, "count", False, None
        first = self._field(None)
        if self._accept(",", "["):
            return self._order_by_items(first)
        fields = [first]
        while self._accept(","):
            fields.append(self._field(first.alias))
        return tuple(each.path for each in fields), None, False, first.alias

    def _order_by_items(
        self, rid: Field
    ) -> tuple[tuple[Path, ...] | None, str | None, bool, str | None]:
        """`c._rid, [{"item": c.x}] AS orderByItems, c AS payload` of a query plan."""
        while not self._accept("]"):
            self._expect("{", '"item"', ":")
            self._field(rid.alias)
            self._expect("}")
            self._accept(",")
        self._expect("AS", "ORDERBYITEMS", ",", rid.alias.upper(), "AS", "PAYLOAD")
        return None, None, True, rid.alias

    def _order(self, alias: str) -> tuple[SortKey, ...]:
        if not self._accept("ORDER", "BY"):
            return ()
        keys = [self._sort_key(alias)]
        while self._accept(","):
            keys.append(self._sort_key(alias))
        return tuple(keys)

    def _sort_key(self, alias: str) -> SortKey:
        field = self._field(alias)
        descending = self._accept("DESC")
        if not descending:
            self._accept("ASC")
        return SortKey(field.path, descending)

    # --- conditions

    def _condition_or_true(self, alias: str) -> Node:
        return self._either(alias) if self._accept("WHERE") else Truth(True)

    def _either(self, alias: str) -> Node:
        nodes = [self._both(alias)]
        while self._accept("OR"):
            nodes.append(self._both(alias))
        return nodes[0] if len(nodes) == 1 else Either(tuple(nodes))

    def _both(self, alias: str) -> Node:
        nodes = [self._primary(alias)]
        while self._accept("AND"):
            nodes.append(self._primary(alias))
        return nodes[0] if len(nodes) == 1 else Both(tuple(nodes))

    def _primary(self, alias: str) -> Node:
        if self._accept("("):
            node = self._either(alias)
            self._expect(")")
            return node
        token = self._peek()
        if token.kind == "placeholder":
            self._next()
            return Truth(True)
        if token.keyword in {"TRUE", "FALSE"}:
            self._next()
            return Truth(token.keyword == "TRUE")
        if self._accept("EXISTS"):
            return self._exists(alias)
        if self._peek(1).text == "(":
            return self._call(alias)
        return self._comparison(alias)

    def _exists(self, alias: str) -> Node:
        self._expect("(", "SELECT", "VALUE")
        element = self._name()
        self._expect("FROM", element.upper(), "IN")
        field = self._field(alias)
        self._expect("WHERE")
        condition = self._either(element)
        self._expect(")")
        return ExistsIn(element, field, condition)

    def _call(self, alias: str) -> Node:
        name = self._next().keyword
        if name not in _FUNCTIONS:
            raise bad_request(f"'{name}' is not a function that the emulator knows.")
        self._expect("(")
        field = self._field(alias)
        operand = None
        if _FUNCTIONS[name] == 2:
            self._expect(",")
            operand = self._operand()
        self._expect(")")
        return Call(name, field, operand)

    def _comparison(self, alias: str) -> Node:
        field = self._field(alias)
        if self._accept("IN", "("):
            operands = [self._operand()]
            while self._accept(","):
                operands.append(self._operand())
            self._expect(")")
            return InList(field, tuple(operands))
        if self._accept("LIKE"):
            operand = self._operand()
            escape = _string(self._next().text) if self._accept("ESCAPE") else None
            return LikePattern(field, operand, escape)
        operator = self._next().text
        if operator not in {"=", "<", "<=", ">", ">="}:
            raise bad_request(f"Syntax error, incorrect syntax near '{operator}'.")
        return Comparison(field, operator, self._operand())

    def _field(self, alias: str | None) -> Field:
        root = self._name()
        if alias is not None and root != alias:
            raise bad_request(f"Identifier '{root}' could not be resolved.")
        path: list[str] = []
        while True:
            if self._accept("."):
                path.append(self._next().text)
            elif self._accept("["):
                path.append(_string(self._next().text))
                self._expect("]")
            else:
                return Field(root, tuple(path))

    def _operand(self) -> Operand:
        token = self._next()
        match token.kind:
            case "parameter":
                return Parameter(token.text)
            case "string":
                return Literal(_string(token.text))
            case "number":
                return Literal(json.loads(token.text))
            case "word" if token.text in {"true", "false", "null"}:
                return Literal(json.loads(token.text))
        raise bad_request(f"Syntax error, incorrect syntax near '{token.text}'.")


@lru_cache(maxsize=2048)
def parse(text: str) -> Statement:
    """The statement; CosmosError 400 for anything outside the grammar."""
    return _Parser(text).statement()


@lru_cache(maxsize=512)
def parse_condition(text: str) -> tuple[str, Node]:
    """Alias and condition of `FROM alias WHERE condition`."""
    return _Parser(text).condition_clause()
