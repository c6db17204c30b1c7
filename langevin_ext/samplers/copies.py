"""Copies of the state to the host for which a run does not wait."""

import torch


class Slot:
    """One copy under way: the state is put aside on the device, and goes to page-locked memory on another stream."""

    def __init__(self):
        self.aside = self.pinned = self.target = self.event = None

    def start(self, target, source, stream):
        """Begins target <- source; `stream` None does it at once, but for the last part."""
        self.finish()
        if self.aside is None or self.aside.shape != source.shape or self.aside.dtype != source.dtype:
            self.aside = torch.empty(source.shape, dtype=source.dtype, device=source.device)
            self.pinned = torch.empty(source.shape, dtype=source.dtype, pin_memory=stream is not None)
        self.aside.copy_(source)
        self.target = target
        if stream is None:
            self.pinned.copy_(self.aside)
            return
        stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(stream):
            self.pinned.copy_(self.aside, non_blocking=True)
            self.event = stream.record_event()

    def finish(self):
        """Waits for the copy, and puts it where it belongs."""
        if self.target is None:
            return
        if self.event is not None:
            self.event.synchronize()
        self.target.copy_(self.pinned)
        self.target = None


class Copies:
    """Up to two copies at a time; `flush` before anybody reads the targets.

    Args:
        device: of the states.
        slots: 0 copies at once, which is all that the CPU needs.
    """

    def __init__(self, device, slots=None):
        cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if cuda else None
        self.slots, self.turn = [Slot() for _ in range((2 if cuda else 0) if slots is None else slots)], 0

    def put(self, target, source):
        """target <- source as it is now."""
        if not self.slots:
            target.copy_(source)
            return
        self.slots[self.turn].start(target, source, self.stream)
        self.turn = (self.turn + 1) % len(self.slots)

    def flush(self):
        """Waits for all copies."""
        for slot in self.slots:
            slot.finish()
