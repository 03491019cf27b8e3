"""What a run cost: time, bytes, energy, communication, arithmetic, and on which system.

    stall.py          step times, waiting for data, AU
    io.py             bytes asked for and bytes from the device, the page cache, raw reading speed
    energy.py         the meter; sensors.py and gpu_sensors.py what it reads; energy_report.py what it says
    comm.py           all-reduce bandwidth, exposed communication
    compute.py        operations per sample, ceilings, datasheets
    clock.py          offsets between the nodes' clocks
    system.py         the nodes described; hardware.py and software.py what they are made of

Nothing here imports torch before it is used, or MPI at all: communicators and all-reduces are given by the caller.
"""
