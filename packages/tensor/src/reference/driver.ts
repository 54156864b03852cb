import { closeSync, openSync, readSync } from 'node:fs';
import { commandNames, type CommandName } from '../driver/schema.js';
import { checkCommand } from '../driver/check.js';
import { decode } from '../driver/encode.js';
import type { Driver, DriverFailure, DriverInfo } from '../driver/driver.js';
import { Backend, type BackendOptions } from '../core/backend.js';
import { ReferenceMemory } from './memory.js';
import { reference } from './commands.js';

const failure = (code: DriverFailure['code'], message: string, command?: string): DriverFailure =>
  Object.assign(new Error(message), { code, command }) as DriverFailure;

const whole = (what: string, value: number, least = 0): void => {
  if (!Number.isSafeInteger(value) || value < least)
    throw failure('command', `${what} must be a whole number of at least ${least}`);
};

const info: DriverInfo = {
  type: 'cpu',
  index: 0,
  name: 'TypeScript reference',
  totalBytes: 2 ** 33,
  mapsFiles: false,
  activationDtypes: ['f32', 'f16', 'bf16'],
  features: {},
};

/**
 * The commands as plain loops in double precision: slow and obviously right. It runs each command when it is submitted;
 * the conformance suite compares every other driver with it.
 */
export class ReferenceDriver implements Driver {
  readonly info = info;
  #memory = new ReferenceMemory();
  #files = new Map<number, number>();
  #programs = new Map<number, { name: CommandName; words: Float64Array }[]>();
  #recording: { name: CommandName; words: Float64Array }[] | undefined;
  #next = 1;
  #error: DriverFailure | undefined;
  #closed = false;

  alloc(bytes: number): number {
    this.#open();
    whole('bytes', bytes, 1);
    if (this.#memory.allocatedBytes + bytes > info.totalBytes) {
      throw Object.assign(failure('out_of_memory', 'out of memory'), {
        wantedBytes: bytes,
        freeBytes: info.totalBytes - this.#memory.allocatedBytes,
      });
    }
    return this.#memory.alloc(bytes);
  }

  release(buffer: number): void {
    this.#open();
    if (!this.#memory.buffers.has(buffer)) throw failure('command', `buffer ${buffer} does not exist or was released`);
    this.#memory.release(buffer);
  }

  submit(code: number, words: Float64Array): void {
    this.#open();
    if (commandNames[code] === undefined) throw failure('command', `there is no command ${code}`);
    const command = { name: commandNames[code], words: words.slice() };
    if (this.#recording) this.#recording.push(command);
    else this.#run(command.name, command.words);
  }

  write(buffer: number, offset: number, data: Uint8Array): void {
    this.#idle();
    this.#memory.bytes(buffer, offset, data.byteLength).set(data);
  }

  /** The bytes of a buffer now; what a real device cannot do. */
  peek(buffer: number, offset: number, bytes: number): Uint8Array {
    return this.#memory.bytes(buffer, offset, bytes).slice();
  }

  async read(buffer: number, offset: number, bytes: number): Promise<ArrayBuffer> {
    this.#idle();
    const copy = this.#memory.bytes(buffer, offset, bytes).slice().buffer;
    await this.flush();
    return copy;
  }

  openFile(path: string): number {
    this.#open();
    try {
      this.#files.set(this.#next, openSync(path, 'r'));
    } catch (cause) {
      throw failure('file', `cannot open ${path}: ${(cause as Error).message}`);
    }
    return this.#next++;
  }

  closeFile(file: number): void {
    this.#open();
    closeSync(this.#file(file));
    this.#files.delete(file);
  }

  readFile(file: number, fileOffset: number, buffer: number, offset: number, bytes: number): void {
    this.#idle();
    whole('fileOffset', fileOffset);
    const [target, descriptor] = [this.#memory.bytes(buffer, offset, bytes), this.#file(file)];
    for (let done = 0; done < bytes;) {
      const got = readSync(descriptor, target, done, bytes - done, fileOffset + done);
      if (got === 0) {
        this.#error ??= failure('file', `the file ends ${bytes - done} bytes early`);
        return;
      }
      done += got;
    }
  }

  #file(id: number): number {
    const descriptor = this.#files.get(id);
    if (descriptor === undefined) throw failure('file', `file ${id} is not open`);
    return descriptor;
  }

  mapFile(): number {
    throw failure('device', 'this driver does not map files');
  }

  copyFrom(
    source: Driver,
    sourceBuffer: number,
    sourceOffset: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean {
    if (!(source instanceof ReferenceDriver)) return false;
    this.#open();
    source.#open();
    if (this.#recording || source.#recording)
      throw failure('command', 'copyFrom may not be called between beginCapture and endCapture');
    this.write(buffer, offset, source.#memory.bytes(sourceBuffer, sourceOffset, bytes));
    return true;
  }

  async flush(): Promise<void> {
    this.#idle();
    const error = this.#error;
    this.#error = undefined;
    if (error) throw error;
  }

  beginCapture(): void {
    this.#idle();
    this.#recording = [];
  }

  endCapture(): number {
    this.#open();
    if (!this.#recording) throw failure('command', 'endCapture without beginCapture');
    this.#programs.set(this.#next, this.#recording);
    this.#recording = undefined;
    return this.#next++;
  }

  replay(program: number): void {
    this.#idle();
    const commands = this.#programs.get(program);
    if (!commands) throw failure('command', `program ${program} does not exist or was released`);
    for (const { name, words } of commands) this.#run(name, words);
  }

  releaseProgram(program: number): void {
    this.#open();
    this.#programs.delete(program);
  }

  /** Nothing is left to call off: commands run when they are submitted. */
  group(): void {
    this.#open();
  }

  cancel(): void {
    this.#open();
  }

  memory(): { allocatedBytes: number; freeBytes: number } {
    this.#open();
    return { allocatedBytes: this.#memory.allocatedBytes, freeBytes: info.totalBytes - this.#memory.allocatedBytes };
  }

  async close(): Promise<void> {
    this.#open();
    this.#closed = true;
    for (const file of this.#files.values()) closeSync(file);
    this.#memory.buffers.clear();
  }

  /** @throws DriverFailure 'closed' */
  #open(): void {
    if (this.#closed) throw failure('closed', 'the device was closed');
  }

  /** For what may not be called while recording. */
  #idle(): void {
    this.#open();
    if (this.#recording) throw failure('command', 'only submit may be called between beginCapture and endCapture');
  }

  #run(name: CommandName, words: Float64Array): void {
    try {
      const args = decode(name, words);
      checkCommand(name, args, info.activationDtypes);
      (reference[name] as (args: unknown, memory: ReferenceMemory) => void)(args, this.#memory);
    } catch (error) {
      this.#error ??= failure('command', (error as Error).message, name);
    }
  }
}

/** A backend on the TypeScript reference. */
export const referenceBackend = (options?: BackendOptions): Backend => new Backend(new ReferenceDriver(), options);
