import type { Driver, DriverInfo } from '../driver/driver.js';

const copiedWrite = 64 << 10;

/** Copies through host memory go in pieces of this many bytes: allocating more at once would block the event loop. */
const pieceBytes = 2 << 20;

/** Some bytes of a buffer. */
export interface Range {
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
}

type Step = () => void | Promise<void>;

/**
 * A driver whose queue can be made to wait for something that is not on it, such as bytes from another device.
 * Meanwhile, what is queued stays here, in order; what the contract lets return at once still does. Allocating, opening
 * files and recording are not held back, as they have no order among the commands.
 */
export class OrderedDriver implements Driver {
  #steps: Step[] | undefined;
  #drained: Promise<void> = Promise.resolve();
  #recording = false;
  #failure: { readonly error: unknown } | undefined;
  #group = 0;
  /** Groups called off while commands of theirs are held here. */
  readonly #cancelled = new Set<number>();

  constructor(private readonly inner: Driver) {}

  get info(): DriverInfo {
    return this.inner.info;
  }

  /**
   * Queues a copy of another device's bytes, of the same length: after what is queued on both so far, before what is
   * queued on either later.
   * @param explain what becomes of a failure of the source, which rejects the next promise of this queue
   */
  receive(source: OrderedDriver, from: Range, to: Range, explain: (error: unknown) => unknown): void {
    const isFree = !this.#steps && !source.#steps;
    if (isFree && this.inner.copyFrom?.(source.inner, from.buffer, from.offset, to.buffer, to.offset, from.bytes))
      return;
    const read = (at: number): Promise<ArrayBuffer> => {
      const arriving = source.inner
        .read(from.buffer, from.offset + at, Math.min(pieceBytes, from.bytes - at))
        .catch((error: unknown) => Promise.reject(explain(error)));
      arriving.catch(() => undefined); // awaited later, perhaps after it is rejected
      return arriving;
    };
    const write = (at: number, piece: ArrayBuffer) =>
      this.inner.write(to.buffer, to.offset + at, new Uint8Array(piece));
    if (from.bytes <= pieceBytes && !source.#steps) {
      const arriving = read(0);
      this.#hold(async () => write(0, await arriving));
    } else this.#receivePieces(source, from.bytes, read, write);
  }

  /** The source waits too, from its turn until all pieces are read, so that it cannot change them. */
  #receivePieces(
    source: OrderedDriver,
    bytes: number,
    read: (at: number) => Promise<ArrayBuffer>,
    write: (at: number, piece: ArrayBuffer) => void,
  ): void {
    let [begin, end] = [(): void => undefined, (): void => undefined];
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const ended = new Promise<void>((resolve) => (end = resolve));
    source.#hold(() => {
      begin();
      return ended;
    });
    this.#hold(async () => {
      try {
        await begun;
        let next = read(0);
        for (let at = 0; at < bytes; at += pieceBytes) {
          const piece = await next;
          if (at + pieceBytes < bytes) next = read(at + pieceBytes);
          write(at, piece);
        }
      } finally {
        end();
      }
    });
  }

  /** Queues something to wait for; its rejection rejects the next promise of this queue. */
  #hold(step: () => Promise<void>): void {
    if (this.#steps) this.#steps.push(step);
    else this.#drained = this.#drain((this.#steps = [step]));
  }

  alloc(bytes: number): number {
    return this.inner.alloc(bytes);
  }

  release(buffer: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.release(buffer));
    else this.inner.release(buffer);
  }

  submit(code: number, words: Float64Array): void {
    if (!this.#steps || this.#recording) return this.inner.submit(code, words);
    const copied = words.slice();
    this.#pushGrouped(this.#steps, () => this.inner.submit(code, copied));
  }

  group(id: number): void {
    this.#group = id;
    if (!this.#steps) this.inner.group(id);
  }

  cancel(group: number): void {
    if (this.#steps) {
      this.#cancelled.add(group);
      this.#steps.push(() => void this.#cancelled.delete(group));
    }
    this.inner.cancel(group);
  }

  /** Holds back a command of the current group, unless that is called off meanwhile. */
  #pushGrouped(steps: Step[], step: () => void): void {
    const group = this.#group;
    steps.push(() => {
      if (this.#cancelled.has(group)) return;
      this.inner.group(group);
      step();
    });
  }

  write(buffer: number, offset: number, data: Uint8Array): void {
    if (!this.#steps || this.#recording) return this.inner.write(buffer, offset, data);
    const held = data.byteLength > copiedWrite ? data : data.slice();
    this.#steps.push(() => this.inner.write(buffer, offset, held));
  }

  read(buffer: number, offset: number, bytes: number): Promise<ArrayBuffer> {
    return this.#promised(() => this.inner.read(buffer, offset, bytes));
  }

  openFile(path: string): number {
    return this.inner.openFile(path);
  }

  closeFile(file: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.closeFile(file));
    else this.inner.closeFile(file);
  }

  readFile(file: number, fileOffset: number, buffer: number, offset: number, bytes: number): void {
    const start = () => this.inner.readFile(file, fileOffset, buffer, offset, bytes);
    if (this.#steps && !this.#recording) this.#steps.push(start);
    else start();
  }

  mapFile(file: number, fileOffset: number, bytes: number): number {
    return this.inner.mapFile(file, fileOffset, bytes);
  }

  flush(): Promise<void> {
    return this.#promised(() => this.inner.flush());
  }

  beginCapture(): void {
    this.inner.beginCapture();
    this.#recording = true;
  }

  endCapture(): number {
    this.#recording = false;
    return this.inner.endCapture();
  }

  replay(program: number): void {
    if (this.#steps) this.#pushGrouped(this.#steps, () => this.inner.replay(program));
    else this.inner.replay(program);
  }

  releaseProgram(program: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.releaseProgram(program));
    else this.inner.releaseProgram(program);
  }

  memory(): { allocatedBytes: number; freeBytes: number } {
    return this.inner.memory();
  }

  async close(): Promise<void> {
    await this.#drained;
    await this.inner.close();
  }

  async #drain(steps: Step[]): Promise<void> {
    for (let next = 0; next < steps.length; next++) {
      try {
        const waits = steps[next]();
        if (waits) await waits;
      } catch (error) {
        this.#failure ??= { error };
      }
    }
    this.#steps = undefined;
    this.#restoreGroup();
  }

  /** What was held back may have left another group behind. */
  #restoreGroup(): void {
    try {
      this.inner.group(this.#group);
    } catch {
      // closed: there is no group to be in
    }
  }

  #promised<T>(start: () => Promise<T>): Promise<T> {
    if (!this.#steps) return this.#failure ? this.#rejected(start) : start();
    return new Promise((resolve, reject) => {
      this.#steps!.push(() => void (this.#failure ? this.#rejected(start) : start()).then(resolve, reject));
    });
  }

  /** Waits as the caller asked to, then rejects with the first failure found here. */
  async #rejected<T>(start: () => Promise<T>): Promise<T> {
    const { error } = this.#failure!;
    this.#failure = undefined;
    await start().catch(() => undefined);
    throw error;
  }
}
