// Commands that are called off: the rest of the queue does not notice.
import { activation, add, fill } from '../ops/elementwise.js';
import type { Tensor } from '../core/tensor.js';
import { fail, type Conformance, type ConformanceCase } from './harness.js';

const count = 1 << 16;

/** Enough of a queue that most of it has not begun when the caller goes on. */
const queue = (x: Tensor) => {
  for (let i = 0; i < 64; i++) activation(x, 'gelu', { inPlace: true });
};

const expectFilled = async (tensor: Tensor, value: number, what: string) => {
  const data = (await tensor.data()) as Float32Array;
  if (!data.every((one) => one === value)) fail(`${what} should be ${value}, is ${data.find((one) => one !== value)}`);
};

const others: ConformanceCase = {
  name: 'cancellable: what is outside the group runs, and promises settle',
  run: async ({ backend, dtype }: Conformance) => {
    const [x, y, z] = [0, 1, 2].map(() => backend.empty([count], dtype).keep());
    const [stopped, running] = [new AbortController(), new AbortController()];
    fill(z, 1);
    backend.cancellable(stopped.signal, () => queue(x));
    fill(y, 2);
    backend.cancellable(running.signal, () => add(z, z).dispose());
    backend.cancellable(running.signal, () => fill(z, 3));
    const pending = x.data();
    stopped.abort();
    await pending;
    await backend.flush();
    await expectFilled(y, 2, 'a tensor filled outside');
    await expectFilled(z, 3, "another group's");
    fill(x, 4);
    await expectFilled(x, 4, 'a tensor whose commands were called off, filled again');
    running.abort();
    for (const tensor of [x, y, z]) tensor.dispose();
    await backend.flush();
  },
};

const signals: ConformanceCase = {
  name: 'cancellable: signals, programs and errors',
  run: async ({ backend, dtype }) => {
    const x = backend.empty([count], dtype).keep();
    fill(x, 0);
    const stop = new AbortController();
    if (backend.cancellable(undefined, () => 5) !== 5 || backend.cancellable(stop.signal, () => 6) !== 6)
      fail('the result of the function is lost');
    try {
      backend.cancellable(stop.signal, () => {
        throw new RangeError('inside');
      });
      fail('an error inside is swallowed');
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    fill(x, 1);
    const program = backend.capture(() => fill(x, 2));
    backend.cancellable(stop.signal, () => {
      queue(x);
      program.replay();
    });
    fill(x, 3);
    stop.abort(new RangeError('stopped'));
    await expectFilled(x, 3, 'what follows');
    program.replay();
    await expectFilled(x, 2, 'a program that was called off once');
    try {
      backend.cancellable(stop.signal, () => fill(x, 9));
      fail('a signal that has aborted is not seen');
    } catch (error) {
      if ((error as Error).message !== 'stopped') throw error;
    }
    await expectFilled(x, 2, 'a tensor after a signal that had aborted');
    program.dispose();
    x.dispose();
  },
};

export const cancelCases: readonly ConformanceCase[] = [others, signals];
