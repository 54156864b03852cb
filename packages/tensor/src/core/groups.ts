/**
 * Groups of commands that signals call off: one for each signal, however often it is used. A signal may live longer
 * than the device, and the other way around: neither keeps the other.
 */
export class Groups {
  /** The group that commands are queued in now; 0: none. */
  current = 0;
  #next = 1;
  readonly #bySignal = new WeakMap<AbortSignal, number>();

  /** @param cancel called with a group when its signal aborts */
  constructor(private readonly cancel: (group: number) => unknown) {}

  /** The signal's group. */
  of(signal: AbortSignal): number {
    const known = this.#bySignal.get(signal);
    if (known !== undefined) return known;
    const id = this.#next++;
    const groups = new WeakRef(this);
    signal.addEventListener('abort', () => groups.deref()?.cancel(id), { once: true });
    this.#bySignal.set(signal, id);
    return id;
  }
}
