"""One run, from the command to its verdict: manifest → stage → load → train → evaluate → record."""

from __future__ import annotations

import time
import traceback

import psutil

from sciml_hpc import errors, verdict
from sciml_hpc.collect import Measured, collect
from sciml_hpc.console import Console
from sciml_hpc.data import staging
from sciml_hpc.data.prepare import dataset_directory
from sciml_hpc.errors import RunFault, UserError
from sciml_hpc.job import Job, describe_system, drop_cache, energy_meter, same_code, system_name
from sciml_hpc.metering.clock import clock_offset
from sciml_hpc.parallel import device as devices
from sciml_hpc.parallel import engine as engines
from sciml_hpc.parallel.watchdog import Watchdog
from sciml_hpc.parallel.world import World
from sciml_hpc.plan import Request, settle
from sciml_hpc.preparation import ready
from sciml_hpc.recorder import Recorder, open_log
from sciml_hpc.results import record
from sciml_hpc.training import arithmetic, calibrate, explain, infer
from sciml_hpc.training.checkpoint import Checkpointer
from sciml_hpc.training.loop import Training


def run(request: Request, world: World, console: Console) -> int:
    """Run a benchmark and print its verdict; collective. Returns the exit status, the same on every rank.

    Raises UserError or RunFault on all ranks at once for what is wrong before the log is begun.
    """
    # Settled before anything is spent: the configuration, the data set, where results go.
    plan = world.once(lambda: settle(request, world.size))
    config, target = plan.config, plan.dataset.target.as_target()
    benchmark = plan.benchmark()
    same_code(world)
    console.line(verdict.headline(plan, world))
    folder = record.folder(request.output, system_name(request.system, world), config.scaling, benchmark.name)
    world.once(lambda: record.check_writable(folder))
    reference = world.once(lambda: record.load_reference(request.reference))
    index = ready(plan, request.data, world, console)
    data = dataset_directory(request.data, plan.dataset_name)
    staging.check(index, data, world, config.staging.mode, request.scratch)

    # Set-up: nothing of it touches the data set.
    device = devices.choose(world)
    engine = world.together(lambda: engines.start(config.communication, world, device))
    job = Job.of(plan, world, device, engine, index)
    for note in job.notes:
        console.line(f"note: {note}")
    description = describe_system(world, {"data": request.data, "results": folder})
    paths = world.once(lambda: record.begin(folder, config, job.identity(), request.resume))
    log = open_log(paths, request, plan, job, description) if world.is_root else None
    meter = energy_meter(world, config.measure.enabled)
    recorder = Recorder(console, log, meter, config.train.epochs, target.metric)
    watchdog = Watchdog(world, lambda message, speaks: verdict.broken(message, speaks, recorder, paths, plan, job))
    if watchdog.unavailable:
        console.line(f"note: lost ranks are not watched for: {watchdog.unavailable}")
    training = staged = None
    try:
        meter.measure_idle(config.measure.idle_s)
        clock = clock_offset(world.leaders) if world.is_leader else None
        cache = drop_cache(world, index, data, config)
        saver = Checkpointer(paths.checkpoint) if world.is_root else None
        recorder.begin(cache, request.resume)

        # The clock runs: stage, train, evaluate.
        world.comm.Barrier()
        recorder.run_start(request.resume)
        staged = staging.stage(index, data, world, config.staging.mode, request.scratch, config.staging.keep)
        recorder.staging_stop(world.sum(staged.report), staged)
        training = Training(
            benchmark(config.train, index.fields), config, world, engine, device.torch, index, staged, job.local_batch
        )
        training.join(paths.checkpoint if request.resume else None)
        recorder.joined(training, request.resume)
        startup_s = world.max(time.time() - psutil.Process().create_time())
        outcome = training.run(target, recorder, saver)
        recorder.run_stop(outcome)
        spent = meter.stop()

        # The clock has stopped: what else is measured, on the trained model.
        ended = outcome.status != "interrupted"
        batches, steps = config.measure.inference_batches, config.measure.calibrate_steps
        inference = infer.measure(training, batches) if ended and batches else None
        calibration = calibrate.calibrate(training, steps) if ended and steps else None

        ceiling_s = config.measure.ceiling_s
        operations = arithmetic.measure(training, ceiling_s) if ended and ceiling_s else None
        pictures = explain.pictures(training) if ended else ()

        # Record, and judge.
        here = Measured(outcome, staged.report, spent, inference, calibration, operations, clock, startup_s)
        measured = collect(world, job, config, index, staged, cache, here)
        world.once(lambda: record.write_pictures(paths.pictures, pictures))
        return world.once(
            lambda: verdict.conclude(
                paths, recorder, plan, job, description, outcome, measured, reference, startup_s, request.org
            )
        )
    except (UserError, RunFault) as error:  # raised on all ranks at once; node-hours were spent, whoever is to blame
        if world.is_root:
            verdict.broken(str(error), True, recorder, paths, plan, job)
        return errors.FAULT
    except Exception as error:  # on this rank alone: end the others, too
        traceback.print_exc()
        watchdog.abort(f"rank {world.rank} on {world.host}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        raise
    finally:
        watchdog.close()
        if training is not None:
            training.close()
        if staged is not None and world.is_leader:
            staged.remove()
        engine.close()
