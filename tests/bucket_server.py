"""A bucket in this process's memory: python -m tests.bucket_server PORT.

The emulator, and what TensorStore reads besides: generations of objects, and whether they changed.
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server


def with_generations(download):
    def wrapped(request, response, storage, *args, **kwargs):
        download(request, response, storage, *args, **kwargs)
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        names = request.params["bucket_name"], request.params["object_id"]
        generation = storage.get_file_obj(*names)["generation"]
        response["X-Goog-Generation"] = generation
        if request.query.get("ifGenerationNotMatch") == [generation]:
            response.status = HTTPStatus.NOT_MODIFIED
            response.write_file(b"")

    return wrapped


def main(port: int) -> None:
    objects.download = with_generations(objects.download)
    create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket").run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
