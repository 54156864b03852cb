import { library } from '../../tooling/tsup.js';
export default library({ index: 'src/index.ts', 'conformance/index': 'src/conformance/index.ts' });
