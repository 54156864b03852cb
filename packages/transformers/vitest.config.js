import { preset } from '../../tooling/vitest.js';
// One file at a time: some tests measure memory and delays.
export default preset({ fileParallelism: false });
