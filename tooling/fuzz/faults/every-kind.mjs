// Has each kind of fault in turn: what the frame must notice.
import { openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const kinds = ['none', 'crash', 'busy', 'never', 'untyped', 'pollution', 'leak', 'memory', 'rejection', 'none'];

const never = () => new Promise(() => undefined);

const actions = {
  none: () => undefined,
  crash: () => process.abort(),
  busy: () => {
    for (;;);
  },
  never,
  untyped: () => {
    throw new TypeError('not a typed error');
  },
  pollution: () => {
    Object.prototype.polluted = true;
  },
  leak: (folder) => {
    const path = join(folder, 'open.txt');
    writeFileSync(path, '');
    openSync(path);
  },
  memory: () => Buffer.alloc(96 << 20, 1),
  rejection: async () => {
    void Promise.reject(new Error('nobody waits'));
    await new Promise((resolve) => setTimeout(resolve, 20));
  },
};

export default {
  deadlineMs: 3000,
  memoryBytes: 48 << 20,
  good: () => [{ kind: 'none' }],
  make: (_random, _state, index) => ({ kind: kinds[index % kinds.length] }),
  run: ({ kind }, folder) => actions[kind](folder),
};
