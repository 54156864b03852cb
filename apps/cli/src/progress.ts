import { SingleBar } from 'cli-progress';
import { bytes } from './output.js';

/** Shows how far something is; does nothing where stderr is no terminal. */
export interface Progress extends Disposable {
  update(value: number, total: number): void;
  stop(): void;
}

const silent: Progress = { update: () => undefined, stop: () => undefined, [Symbol.dispose]: () => undefined };

/** A progress bar on stderr. @param unit `bytes` formats sizes; other words are printed behind the numbers. */
export function progressBar(title: string, unit: string): Progress {
  if (!process.stderr.isTTY) return silent;
  const show = (value: number) => (unit === 'bytes' ? bytes(value) : `${value} ${unit}`);
  const bar = new SingleBar({
    format: (_options, { progress, value, total }) => {
      const width = 30;
      const full = Math.round(width * Math.min(progress, 1));
      return `${title} ${'█'.repeat(full)}${'░'.repeat(width - full)} ${show(value)} of ${show(total)}`;
    },
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    fps: 10,
  });
  let started = false;
  const stop = () => {
    if (started) bar.stop();
    started = false;
  };
  const update = (value: number, total: number) => {
    if (!started) bar.start(total, value);
    started = true;
    bar.setTotal(total);
    bar.update(value);
  };
  return { update, stop, [Symbol.dispose]: stop };
}
