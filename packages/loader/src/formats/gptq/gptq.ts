import { CheckpointError } from '@q/config';
import type { Checkpoint } from '../../checkpoint.js';
import type { DescribedFormat, Description } from '../format.js';

const part = /^(.+)\.(qzeros|scales|g_idx)$/;
const isPacked = (name: string): boolean => name.endsWith('.qweight');

/** GPTQ packs the input axis: its length is that of g_idx, else it follows from the configured bits. */
function describe(checkpoint: Checkpoint, name: string, bits: unknown): Description | undefined {
  if (!isPacked(name)) return undefined;
  const packed = checkpoint.tensor(name);
  const order = checkpoint.tensors.get(name.replace(/qweight$/, 'g_idx'));
  const inputs = order?.elements ?? (typeof bits === 'number' && bits > 0 ? (packed.shape[0] * 32) / bits : undefined);
  if (inputs === undefined || packed.shape.length !== 2) {
    throw new CheckpointError('inspect', 'the size of a GPTQ weight is unknown', {
      file: packed.file,
      tensor: name,
      shape: packed.shape,
      why: 'there is neither g_idx nor bits in the configuration',
    });
  }
  return { format: 'gptq', storedAs: 'gptq', shape: [packed.shape[1], inputs], dtype: packed.dtype, counts: true };
}

/** GPTQ as AutoGPTQ writes it: codes in words of 32 bits under `qweight`. */
export const gptq: DescribedFormat = {
  owner: (checkpoint, name) => {
    const owner = part.exec(name)?.[1];
    return owner !== undefined && checkpoint.has(`${owner}.qweight`) ? `${owner}.qweight` : undefined;
  },
  describe,
};
