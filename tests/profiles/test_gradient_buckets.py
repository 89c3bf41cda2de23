"""Messages of gradients: never tiny, never huge."""

from profiles.gradient_buckets import LEAST_BYTES, MOST_BYTES, bucket_bytes


def test_bucket_sizes():
    assert bucket_bytes(40) == LEAST_BYTES
    assert bucket_bytes(64 << 20) == 8 << 20
    assert bucket_bytes(4 << 30) == MOST_BYTES
