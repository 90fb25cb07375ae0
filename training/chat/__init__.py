"""Fine-tuning on conversations: a chat template in bytes, loss on the assistant's turns alone."""

from proxybyte.model_loading import chat_tokenizer_in

from .dataset import ChatDataset, read_chats
from .encoding import EncodedChat, encode_conversation, encode_row

__all__ = ["ChatDataset", "EncodedChat", "chat_tokenizer_in", "encode_conversation", "encode_row", "read_chats"]
