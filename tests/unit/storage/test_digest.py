import hashlib

from autospine.storage.digest import digest_of, digest_of_file, digest_of_files, sha256_of, sha256_of_file


def test_parts_are_joined_without_marks_between_them():
    assert (
        digest_of([b"ab", b"c"]) == digest_of([b"abc"]) == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    )
    assert sha256_of([b"ab", b"c"]) == hashlib.sha256(b"abc").hexdigest()


def test_known_values(tmp_path):
    """Files that users have hold such digests."""
    assert digest_of([]) == "cae66941d9efbd404e4d88758ea67670"
    assert sha256_of([]).startswith("e3b0c44298fc1c149afbf4c8996fb924")
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert digest_of_file(path) == digest_of([path.read_bytes()])
    assert sha256_of_file(path) == sha256_of([path.read_bytes()])
    whole = hashlib.blake2b(path.read_bytes()).digest()
    assert digest_of_files([path, path]) == hashlib.blake2b(whole * 2, digest_size=16).hexdigest()
