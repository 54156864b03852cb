import { ConfigError } from '@q/config';

/** A place that computes: the CPU or one CUDA device. */
export interface Device {
  readonly type: 'cpu' | 'cuda';
  readonly index: number;
}

export const deviceName = ({ type, index }: Device): string => (type === 'cpu' ? 'cpu' : `cuda:${index}`);

/**
 * Reads a device as PyTorch writes it: `'cpu'`, `'cuda'`, `'cuda:1'`, or a bare GPU number.
 * @throws ConfigError for anything else.
 */
export function parseDevice(name: string | number): Device {
  const match = /^(?:(cpu)|(?:cuda|gpu)(?::(\d+))?|(\d+))$/.exec(String(name));
  if (!match)
    throw new ConfigError('device', `"${name}" is no device`, { fix: 'use "cpu", "cuda", "cuda:N" or a GPU number' });
  if (match[1]) return { type: 'cpu', index: 0 };
  return { type: 'cuda', index: Number(match[2] ?? match[3] ?? 0) };
}
