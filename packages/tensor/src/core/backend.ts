import {
  ConfigError,
  DisposedError,
  NativeError,
  OutOfMemoryError,
  QError,
  ShapeError,
  UnsupportedError,
} from '@q/config';
import { dtypeBytes, type DType } from '../dtype.js';
import { commandCodes, encode } from '../driver/encode.js';
import type { Driver, DriverFailure, DriverInfo } from '../driver/driver.js';
import type { CommandArgs, CommandName } from '../driver/schema.js';
import { fused } from '../lowering/fused.js';
import type { Lowering } from '../lowering/lowering.js';
import { deviceName, type Device } from './device.js';
import { Groups } from './groups.js';
import { bf16FromNumber, f16FromNumber } from './half.js';
import { OrderedDriver } from './ordered.js';
import { Pool } from './pool.js';
import { countOf, decodeBytes, Storage, Tensor, type Shape, type TensorData } from './tensor.js';

/** Bytes of a device: by tensors now, most so far, kept for reuse, and what the device has. */
export interface MemoryStats {
  readonly usedBytes: number;
  readonly peakBytes: number;
  readonly idleBytes: number;
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** A recorded sequence of commands; a replay costs one call. */
export interface Program extends Disposable {
  replay(): void;
  dispose(): void;
}

/** A file opened for loading; tensors made from it stay valid after close. */
export interface DeviceFile {
  readonly path: string;
  close(): void;
  [Symbol.dispose](): void;
}

export interface BackendOptions {
  /** See {@link Backend.lowering}. Default {@link fused}. */
  readonly lowering?: Lowering;
  /** See {@link Backend.checksFinite}. */
  readonly checkFinite?: boolean;
}

type Numbers = ArrayLike<number> & { readonly length: number };

/**
 * One device: an in-order queue with its memory. Every method returns at once unless it gives a promise; errors found
 * on the queue reject the next promise. Made by {@link openBackend}; the ops that run on it are functions of tensors
 * (`linear`, `rmsNorm`...).
 */
export class Backend {
  readonly device: Device;
  #pool: Pool;
  #scopes: Set<Tensor>[] = [];
  #persistentBytes = 0;
  #peakBytes = 0;
  #closing: Promise<void> | undefined;
  readonly #groups = new Groups((group) => this.isClosed || this.driver.cancel(group));
  #lowering: Lowering;
  #checks: Promise<void>[] = [];
  #onCommand: ((name: CommandName, args: unknown) => void) | undefined;

  /**
   * Whether models look at the result of every layer and report the first that is not finite: slow, to find a fault.
   */
  readonly checksFinite: boolean;

  private readonly driver: OrderedDriver;

  constructor(driver: Driver, { lowering = fused, checkFinite = false }: BackendOptions = {}) {
    this.#lowering = lowering;
    this.checksFinite = checkFinite;
    this.driver = new OrderedDriver(driver);
    this.device = { type: driver.info.type, index: driver.info.index };
    this.#pool = new Pool(this.driver);
  }

  get caps(): DriverInfo {
    return this.driver.info;
  }

  get name(): string {
    return deviceName(this.device);
  }

  /** What turns ops into commands on this device. */
  get lowering(): Lowering {
    return this.#lowering;
  }

  /** Runs `fn`, whose ops are lowered another way. */
  lowered<T>(lowering: Lowering, fn: () => T): T {
    const before = this.#lowering;
    this.#lowering = lowering;
    try {
      return fn();
    } finally {
      this.#lowering = before;
    }
  }

  // ---- tensors

  /** A temporary from the pool, content undefined. */
  empty<D extends DType>(shape: Shape, dtype: D): Tensor<D> {
    const bytes = countOf(shape) * dtypeBytes(dtype);
    const buffer = this.#alloc(() => this.#pool.take(Math.max(bytes, 1)));
    this.#notePeak();
    return new Tensor(new Storage(this, buffer, bytes, (id) => this.isClosed || this.#pool.give(id)), 0, dtype, shape);
  }

  /** Memory of exactly this size for weights and caches, content undefined; given back to the device on dispose. */
  allocate<D extends DType>(shape: Shape, dtype: D): Tensor<D> {
    const bytes = Math.max(countOf(shape) * dtypeBytes(dtype), 1);
    return this.#persistent(
      this.#alloc(() => this.driver.alloc(bytes)),
      bytes,
      shape,
      dtype,
    );
  }

  /**
   * A tensor of the given numbers (rounded to a 16-bit dtype to nearest even). @throws ShapeError when the count
   * differs.
   */
  tensor<D extends Exclude<DType, 'i64'>>(values: Numbers, shape: Shape, dtype: D): Tensor<D> {
    const out = this.empty(shape, dtype);
    try {
      this.assign(out, values);
    } catch (error) {
      out.dispose();
      throw error;
    }
    return out;
  }

  /** Queues a write of numbers into a tensor. @throws ShapeError when the count differs. */
  assign(target: Tensor, values: Numbers): void {
    if (values.length !== target.count)
      throw new ShapeError('tensor', 'count differs from the shape', { values: values.length, shape: target.shape });
    this.upload(target, encodeNumbers(target.dtype, values));
  }

  /** Queues a write of raw bytes. @throws ShapeError when the length differs. */
  upload(target: Tensor, bytes: Uint8Array): void {
    const { buffer, offset, bytes: expected } = target.ref();
    if (bytes.byteLength !== expected)
      throw new ShapeError('upload', 'byte length differs', { got: bytes.byteLength, expected });
    if (expected > 0) this.#guard('upload', () => this.driver.write(buffer, offset, bytes));
  }

  /**
   * Queues a look at a small tensor: what `check` throws rejects this backend's next promise, as what fails on the
   * queue does. The tensor may be disposed at once.
   */
  inspect<D extends DType>(tensor: Tensor<D>, check: (data: TensorData<D>) => void): void {
    const { buffer, offset, bytes } = tensor.ref();
    const looked = this.#guard('read', () => this.driver.read(buffer, offset, bytes)).then((raw) =>
      check(decodeBytes(tensor.dtype, new Uint8Array(raw)) as TensorData<D>),
    );
    looked.catch(() => undefined); // awaited with the next promise
    this.#checks.push(looked);
  }

  async read(buffer: number, offset: number, bytes: number): Promise<Uint8Array> {
    return new Uint8Array(await this.#wait('read', () => this.driver.read(buffer, offset, bytes)));
  }

  /**
   * Queues a copy of the bytes of `source`, on this or another device, into `target` on this one: after everything
   * queued on both so far, before what is queued on either later. `source` may be disposed or overwritten at once.
   * Between GPUs the driver copies; other pairs go through host memory, while what is queued on this device (and,
   * behind more than 2 MiB, on the source) waits, and the caller does not. What fails rejects this device's next
   * promise. {@link copy} and {@link Tensor.to} are built on it.
   * @throws ShapeError when the byte lengths differ; UnsupportedError while one of the devices records a program;
   *   DisposedError when one was closed
   */
  receive(source: Tensor, target: Tensor): void {
    const [from, to, other] = [source.ref(), target.ref(), source.backend];
    if (from.bytes !== to.bytes)
      throw new ShapeError('copy', 'byte length differs', { got: from.bytes, expected: to.bytes });
    if (target.backend !== this)
      throw new ConfigError('copy', 'the target lies on another device', {
        device: this.name,
        target: target.backend.name,
      });
    if (from.bytes === 0) return;
    if (other === this) return this.submit('copy', { src: from, out: to });
    const recording = [this, other].find((backend) => backend.#pool.capturing);
    if (recording) {
      throw new UnsupportedError('copy', 'a copy between devices cannot be recorded', {
        from: other.name,
        to: this.name,
        recording: recording.name,
        why: 'a program belongs to one device',
        fix: 'copy before and after the program, into a tensor that it uses',
      });
    }
    const receive = () => this.driver.receive(other.driver, from, to, (error) => other.#translate('copy', error));
    other.#guard('copy', () => this.#guard('copy', receive));
  }

  // ---- files

  /** @throws NativeError when the file cannot be opened. */
  openFile(path: string): DeviceFile & { readonly id: number } {
    const id = this.#guard('openFile', () => this.driver.openFile(path));
    let open = true;
    const close = () => {
      if (open && !this.isClosed) this.driver.closeFile(id);
      open = false;
    };
    return { id, path, close, [Symbol.dispose]: close };
  }

  /** Queues loading `shape` elements at a byte offset of the file into new memory (`pooled`: a temporary). */
  loadFile<D extends DType>(
    file: { readonly id: number },
    fileOffset: number,
    shape: Shape,
    dtype: D,
    options: { pooled?: boolean } = {},
  ): Tensor<D> {
    const out = options.pooled ? this.empty(shape, dtype) : this.allocate(shape, dtype);
    const { buffer, offset, bytes } = out.ref();
    if (bytes > 0) this.#guard('readFile', () => this.driver.readFile(file.id, fileOffset, buffer, offset, bytes));
    return out;
  }

  /**
   * Like {@link loadFile}, but aliases the file's pages where the device can (the CPU); the tensor is then read-only.
   */
  mapFile<D extends DType>(file: { readonly id: number }, fileOffset: number, shape: Shape, dtype: D): Tensor<D> {
    const bytes = countOf(shape) * dtypeBytes(dtype);
    if (!this.caps.mapsFiles || bytes === 0) return this.loadFile(file, fileOffset, shape, dtype);
    const buffer = this.#guard('mapFile', () => this.driver.mapFile(file.id, fileOffset, bytes));
    return this.#persistent(buffer, bytes, shape, dtype);
  }

  // ---- commands

  /**
   * Queues a command; the ops validate before they call this. @throws PlacementError when a tensor lies on another
   * device.
   */
  submit<N extends CommandName>(name: N, args: CommandArgs<N>): void {
    this.#onCommand?.(name, args);
    this.#guard(name, () => this.driver.submit(commandCodes[name], encode(name, args, this)));
  }

  /** Sees every command before it is queued; undefined stops it. */
  trace(listener: ((name: CommandName, args: unknown) => void) | undefined): void {
    this.#onCommand = listener;
  }

  /**
   * Records the commands that `fn` queues instead of running them. Temporaries made in `fn` belong to the program;
   * tensors from outside must outlive it. Run `fn` once before, so that the pool holds what it needs.
   */
  capture(fn: () => void): Program {
    const { id, owned } = this.#record(fn);
    let live = true;
    const dispose = () => {
      if (!live || this.isClosed) return;
      live = false;
      this.driver.releaseProgram(id);
      this.#pool.adopt(owned);
    };
    const replay = () => {
      if (!live) throw new DisposedError('replay', 'the program was disposed');
      this.#guard('replay', () => this.driver.replay(id));
    };
    return { replay, dispose, [Symbol.dispose]: dispose };
  }

  #record(fn: () => void): { id: number; owned: readonly number[] } {
    this.#guard('capture', () => this.driver.beginCapture());
    this.#pool.beginCapture();
    const end = () => ({ id: this.driver.endCapture(), owned: this.#pool.endCapture() });
    try {
      this.scope(fn);
    } catch (error) {
      const { id, owned } = end();
      this.driver.releaseProgram(id);
      this.#pool.adopt(owned);
      throw error;
    }
    return end();
  }

  /** Resolves when everything queued so far is done; rejects with the first error since the last promise. */
  async flush(): Promise<void> {
    await this.#wait('flush', () => this.driver.flush());
  }

  /**
   * Runs `fn`, which queues commands and returns at once; when the signal aborts, those of them that are not done are
   * called off: queued ones are skipped, the one that runs stops soon (on a CPU), and what they would have written is
   * undefined. The caller frees it. Nothing rejects by this: promises settle as if the commands had run, and commands
   * queued outside are not touched. Without a signal it only runs `fn`.
   * @throws the signal's reason when it has aborted already
   */
  cancellable<T>(signal: AbortSignal | undefined, fn: () => T): T {
    if (!signal) return fn();
    signal.throwIfAborted();
    const outside = this.#groups.current;
    const group = this.#groups.of(signal);
    const enter = (id: number) => {
      this.#groups.current = id;
      if (!this.isClosed) this.driver.group(id);
    };
    enter(group);
    try {
      return fn();
    } finally {
      enter(outside);
    }
  }

  // ---- scopes

  /**
   * Runs `fn` and disposes every tensor made in it, except the one(s) it returns (a tensor, an array or a record of
   * tensors), which go to the enclosing scope.
   */
  scope<T>(fn: () => T): T {
    const made = new Set<Tensor>();
    this.#scopes.push(made);
    let result: T;
    try {
      result = fn();
      for (const tensor of tensorsIn(result)) made.delete(tensor);
    } finally {
      this.#scopes.pop();
      for (const tensor of made) tensor.dispose();
    }
    for (const tensor of tensorsIn(result)) if (!tensor.disposed) this.track(tensor);
    return result;
  }

  track(tensor: Tensor): void {
    this.#scopes[this.#scopes.length - 1]?.add(tensor);
  }

  untrack(tensor: Tensor): void {
    for (const scope of this.#scopes) scope.delete(tensor);
  }

  // ---- memory and end

  memory(): MemoryStats {
    return {
      usedBytes: this.#persistentBytes + this.#pool.usedBytes,
      peakBytes: this.#peakBytes,
      idleBytes: this.#pool.idleBytes,
      freeBytes: this.#guard('memory', () => this.driver.memory().freeBytes),
      totalBytes: this.driver.info.totalBytes,
    };
  }

  resetPeak(): void {
    this.#peakBytes = 0;
    this.#notePeak();
  }

  /** Gives temporaries kept for reuse back to the device. */
  trim(): void {
    this.#guard('trim', () => this.#pool.trim());
  }

  /** Waits for the queue and frees all memory of the device; its tensors become unusable. */
  close(): Promise<void> {
    return (this.#closing ??= this.driver.close());
  }

  /** Whether {@link close} was called. */
  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  #persistent<D extends DType>(buffer: number, bytes: number, shape: Shape, dtype: D): Tensor<D> {
    this.#persistentBytes += bytes;
    this.#notePeak();
    const release = (id: number) => {
      this.#persistentBytes -= bytes;
      if (!this.isClosed) this.driver.release(id);
    };
    return new Tensor(new Storage(this, buffer, bytes, release), 0, dtype, shape);
  }

  /** Allocates; when memory runs out, once more after giving back what is idle (a recording may use that). */
  #alloc(take: () => number): number {
    return this.#guard('alloc', () => {
      try {
        return take();
      } catch (error) {
        if ((error as DriverFailure).code !== 'out_of_memory' || this.#pool.capturing) throw error;
        this.#pool.trim();
        return take();
      }
    });
  }

  #notePeak(): void {
    this.#peakBytes = Math.max(this.#peakBytes, this.#persistentBytes + this.#pool.usedBytes);
  }

  #guard<T>(op: string, fn: () => T): T {
    if (this.isClosed) throw new DisposedError(op, `device ${this.name} was closed`);
    try {
      return fn();
    } catch (error) {
      throw this.#translate(op, error);
    }
  }

  async #wait<T>(op: string, start: () => Promise<T>): Promise<T> {
    const promise = this.#guard(op, start);
    try {
      if (this.#checks.length > 0) await this.#passed(promise);
      return await promise;
    } catch (error) {
      throw this.#translate(op, error);
    }
  }

  /** What was queued to be looked at before the promise; the first that fails is its failure. */
  async #passed(promise: Promise<unknown>): Promise<void> {
    promise.catch(() => undefined);
    const results = await Promise.allSettled(this.#checks.splice(0));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #translate(op: string, error: unknown): unknown {
    if (error instanceof QError || !(error instanceof Error)) return error;
    const failure = error as DriverFailure;
    const where = { device: this.name, cause: error };
    if (failure.code === 'out_of_memory') {
      const { wantedBytes, freeBytes } = failure;
      return new OutOfMemoryError(failure.command ?? op, `device ${this.name} has too little free memory`, {
        ...where,
        wantedBytes,
        freeBytes,
        fix: 'use a smaller batch or context, quantize, or place fewer modules on this device',
      });
    }
    if (failure.code === 'closed') return new DisposedError(op, `device ${this.name} was closed`, { cause: error });
    return new NativeError(failure.command ?? op, failure.message, where);
  }
}

/** The backend of an opened driver. */
export const openBackend = (driver: Driver, options?: BackendOptions): Backend => new Backend(driver, options);

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (Array.isArray(value)) for (const item of value) yield* tensorsIn(item);
  else if (value && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsIn(item);
  }
}

function encodeNumbers(dtype: DType, values: Numbers): Uint8Array {
  const typed = ((): ArrayBufferView => {
    switch (dtype) {
      case 'f32':
        return Float32Array.from(values);
      case 'f16':
        return Uint16Array.from(values, f16FromNumber);
      case 'bf16':
        return Uint16Array.from(values, bf16FromNumber);
      case 'i8':
        return Int8Array.from(values);
      case 'u8':
      case 'bool':
        return Uint8Array.from(values);
      case 'i32':
        return Int32Array.from(values);
      case 'i64':
        return BigInt64Array.from(values as ArrayLike<number>, BigInt);
    }
  })();
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}
