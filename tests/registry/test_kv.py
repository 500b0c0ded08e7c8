"""Operations of a transaction."""

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.registry.answers import TxnOp, encode
from radius_bridge.registry.kv import Op

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


@given(key=keys, value=st.binary(max_size=50), index=st.integers(0, 2**63 - 1), session=st.uuids())
def test_an_operation_takes_no_more_than_its_size(key: str, value: bytes, index: int, session: object) -> None:
    ops = (Op.cas(key, value, index), Op.check(key, index), Op.check_session(key, str(session)), Op.delete(key))
    for op in ops:
        assert len(encode(TxnOp(op))) < op.size
