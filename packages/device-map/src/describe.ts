import { unmatchedLine } from '@q/config';
import { deviceName } from './explain.js';
import { formatSize } from './parse-size.js';
import type { Message } from './types.js';

/** A message as a sentence. */
export const describeMessage = (message: Message): string => {
  switch (message.code) {
    case 'device_unavailable':
      return `${deviceName(message.device)} has a budget but is not available; available are ${message.available.join(', ') || 'no GPUs'}.`;
    case 'device_skipped':
      return `${deviceName(message.device)} cannot be used and is skipped.`;
    case 'ninety_percent':
      return `90 % of the memory of ${deviceName(message.device)} is planned with; the rest stays free for work buffers. Set maxMemory to use more.`;
    case 'offload_buffers':
      return `The buffers of offloaded modules (${formatSize(message.bytes)}) fit into no GPU's free memory; offloadBuffers keeps them with their modules.`;
    case 'insufficient_memory':
      return `Nothing could be placed on ${message.required.map(([device, bytes]) => `${deviceName(device)} (needs ${formatSize(bytes)})`).join(', ')}.`;
    case 'weights_not_tied':
      return 'The config says that the embeddings are tied, but the parameters are not.';
    case 'tied_on_different_devices':
      return `Tied parameters are on different devices: ${Object.entries(message.devices)
        .map(([name, device]) => `${name} on ${deviceName(device)}`)
        .join(', ')}.`;
    case 'balance_given_up':
      return `Filled one after another, the GPUs hold ${formatSize(message.bytes)} more than with even shares.`;
    case 'skip_without_effect':
      return `${unmatchedLine(message.patterns)!}.`;
    case 'checkpoint':
      return message.text;
    case 'unknown_keys':
      return `These keys of the device map are no modules: ${message.keys.join(', ')}.`;
  }
};
