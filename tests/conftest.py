"""What all tests need."""

import signal

# A shell starts what runs in its background with interrupts ignored, and so would be every command
# that a test starts, and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
