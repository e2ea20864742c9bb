"""The files of an export in a folder of the server: `ExportSink`, embedded."""

from pathlib import Path

from dicomweb.export_destination import Folder
from stores.directory_blobs import DirectoryBlobs
from stores.errors import disk_unavailable
from stores.ports import BytesSource, DestinationRefused, Source


class FolderExport:
    """Files below a folder that the settings name."""

    def __init__(self, root: Path, destination: Folder) -> None:
        """Makes the folder.

        Raises:
            DestinationRefused: It cannot be made or written to.
        """
        self._prefix = f"{destination.path}/" if destination.path else ""
        try:
            self._blobs = DirectoryBlobs(root)
        except OSError as error:
            raise DestinationRefused(
                f"Failed to write to the folder of exports ({disk_unavailable(error)})."
            ) from error

    async def put(self, name: str, source: Source) -> None:
        """Stores a file whole or not at all; one that is there is replaced."""
        await self._blobs.put([(self._prefix + name, source)])

    async def write_log(self, name: str, data: bytes) -> None:
        """Makes the log have this content, whatever it had."""
        await self.put(name, BytesSource(data))

    async def close(self) -> None:
        """Ends the threads."""
        await self._blobs.close()
