/** Facts about a device that the backend and the kernel choice depend on. */
export interface DriverInfo {
  readonly type: 'cpu' | 'cuda';
  readonly index: number;
  readonly name: string;
  /** Bytes of memory the device has in all. */
  readonly totalBytes: number;
  /** Whether {@link Driver.mapFile} gives memory that aliases the file. */
  readonly mapsFiles: boolean;
  /** Activation dtypes that the ops take. */
  readonly activationDtypes: readonly ('f32' | 'f16' | 'bf16')[];
  /** Instruction sets, compute capability and such, for reports. */
  readonly features: Readonly<Record<string, string | number | boolean>>;
}

/**
 * One in-order device queue: what a native addon (or the TypeScript reference) implements; `Backend` is built on it.
 * Buffers, files and programs are positive integers. Calls marked "queued" return at once and take effect in order;
 * what fails on the queue rejects the next promise with a {@link DriverFailure}, after which the queue goes on.
 */
export interface Driver {
  readonly info: DriverInfo;
  /**
   * Allocates `bytes` (> 0), 64-byte aligned or better, content undefined. Throws a {@link DriverFailure}
   * 'out_of_memory'.
   */
  alloc(bytes: number): number;
  /** Gives a buffer back once all commands queued before this call are done. */
  release(buffer: number): void;
  /**
   * Queues a command: code from `commandCodes`, arguments from `encode` (copied before this returns). Arguments that
   * the table of rules (rules.ts) refuses are a failure 'command' of the queue, or of this call, whose message begins
   * with the field: no arguments whatever reach memory that they do not name. Indices inside tensors (block tables,
   * positions, lengths, rows) come from the engine; the CPU and the reference check them too, a GPU only the ids of
   * `embedding`.
   */
  submit(code: number, words: Float64Array): void;
  /**
   * Queues a write; `data` is copied or held until written, and must not be changed before the next flush if it is over
   * 64 KiB.
   */
  write(buffer: number, offset: number, data: Uint8Array): void;
  /** Queued read; resolves with the bytes. */
  read(buffer: number, offset: number, bytes: number): Promise<ArrayBuffer>;
  /** Opens a file for {@link readFile} and {@link mapFile}. Throws a {@link DriverFailure} 'file'. */
  openFile(path: string): number;
  closeFile(file: number): void;
  /** Queues a read of file bytes into a buffer, without passing through JavaScript. */
  readFile(file: number, fileOffset: number, buffer: number, offset: number, bytes: number): void;
  /** A read-only buffer that aliases file bytes (only with `info.mapsFiles`); released as any other. */
  mapFile(file: number, fileOffset: number, bytes: number): number;
  /**
   * Queues a copy of bytes of another driver's buffer into one of this driver's, without passing through JavaScript:
   * after everything queued on both so far, before what is queued on either later, so the source's buffer may be
   * released or overwritten at once. Closing either driver waits for it. What fails rejects this driver's next promise.
   * False, with nothing queued, when the two have no such way; absent when the driver has none at all. Throws a {@link
   * DriverFailure} 'command' while either records, 'closed' when either is closed.
   */
  copyFrom?(
    source: Driver,
    sourceBuffer: number,
    sourceOffset: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean;
  /** Resolves when everything queued so far is done. */
  flush(): Promise<void>;
  /** What is submitted or replayed from here on belongs to a group, a positive integer; 0: to none, as at first. */
  group(id: number): void;
  /**
   * Calls off what is queued of a group so far: commands that have not begun are skipped, and the one that runs stops
   * soon where the device can (a CPU; kernels of a GPU that are under way end). What such commands write is undefined
   * from here on. Everything else, releases, reads and flushes included, goes on as it was queued; nothing fails.
   */
  cancel(group: number): void;
  /** Commands submitted until endCapture are recorded, not run. Only `submit` may be called in between. */
  beginCapture(): void;
  /** Ends recording and gives the program; it keeps the buffers it uses. */
  endCapture(): number;
  /** Queues one run of the program. */
  replay(program: number): void;
  releaseProgram(program: number): void;
  /** Bytes allocated now, by this driver; and free on the device (system memory for the CPU). */
  memory(): { allocatedBytes: number; freeBytes: number };
  /** Waits for the queue, then frees everything. Later calls throw. */
  close(): Promise<void>;
}

/** How drivers report: thrown by synchronous calls, or the rejection of `read` and `flush`. */
export interface DriverFailure extends Error {
  readonly code: 'out_of_memory' | 'file' | 'command' | 'closed' | 'device';
  /** The command that failed, from the table; absent when none did. */
  readonly command?: string;
  readonly wantedBytes?: number;
  readonly freeBytes?: number;
}

/** What a native package exports to make drivers. */
export interface Addon {
  /** Hash of the command table that the addon was built with; compared with {@link abiHash} on load. */
  readonly abi: string;
  /**
   * Devices found; none is no error: `problem` then says why, and `fix` what to do. Both may also tell of devices that
   * cannot be used beside those that can.
   */
  devices(): { devices: DriverInfo[]; problem?: string; fix?: string };
  open(index: number, options: { threads?: number }): Driver;
}
